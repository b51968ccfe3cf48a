"""Movement: what changes where and how numbers lie, or their type."""

from collections.abc import Mapping, Sequence

from backends.tenstorrent.emission.code import Call, Context, Emitted, dtype_of, layout_of, memory_of, number
from backends.tenstorrent.program import CardStep


def upload(step: CardStep, context: Context) -> Call:
    """A host array to the card: `view`, `order`, then type and layout; `kept`: only where it changed since."""
    array = f"np.asarray({context.read(step.inputs[0])})"
    view, order = step.options.get("view"), step.options.get("order")
    if view is not None:
        array += f".reshape({_listed(view)})"
    if order is not None and tuple(order) != tuple(range(len(order))):
        array += f".transpose({_listed(order)})"
    how = (array, dtype_of(step.result), layout_of(step.result), "device")
    if step.options.get("kept"):
        return Call("runtime.hold", ("state", f'"{step.result.name}"', *how))
    return Call("runtime.upload", how)


def download(step: CardStep, context: Context) -> Call:
    """A tensor of the card as a host array of float32."""
    after, order, shape = "", step.options.get("order"), step.options.get("shape")
    if order is not None and tuple(order) != tuple(range(len(order))):
        after += f".transpose({_listed(order)})"
    if shape is not None:
        after += f".reshape({_listed(shape)})"
    return Call("runtime.download", (context.read(step.inputs[0]),), after)


def typecast(step: CardStep, context: Context) -> Call:
    """Another type."""
    return Call("ttnn.typecast", (context.read(step.inputs[0]), dtype_of(step.result), _memory(step)))


def to_layout(step: CardStep, context: Context) -> Call:
    """Tiles to rows, or rows to tiles."""
    return Call("ttnn.to_layout", (context.read(step.inputs[0]), layout_of(step.result), _memory(step)))


def permute(step: CardStep, context: Context) -> Call:
    """Axes in another order."""
    return Call("ttnn.permute", (context.read(step.inputs[0]), str(tuple(step.options["order"])), _memory(step)))


def reshape(step: CardStep, context: Context) -> Call:
    """Another shape."""
    return Call("ttnn.reshape", (context.read(step.inputs[0]), str(tuple(step.options["shape"])), _memory(step)))


def cut(step: CardStep, context: Context) -> Call:
    """Part of each axis, with steps where there are any."""
    begins, ends = step.options["begins"], step.options["ends"]
    steps = step.options.get("steps") or [1] * len(begins)
    bounds = (str(list(bound)) for bound in (begins, ends, steps))
    return Call("ttnn.slice", (context.read(step.inputs[0]), *bounds, _memory(step)))


def concat(step: CardStep, context: Context) -> Call:
    """Tensors behind each other."""
    parts = f"[{', '.join(context.read(name) for name in step.inputs)}]"
    return Call("ttnn.concat", (parts, f"dim={step.options['axis']}", _memory(step)))


def pad(step: CardStep, context: Context) -> Call:
    """A number around a tensor.

    Raises:
        ValueError: in front of a tensor in tiles, which ttnn has no operation for.
    """
    pads = [tuple(pair) for pair in step.options["pads"]]
    if step.result.layout == "tile" and any(before for before, _ in pads):
        raise ValueError(
            f"pad {step.result.name}: ttnn 0.81.1 pads tiles behind, never in front; pad rows (to_layout), or concat"
        )
    value = number(float(step.options["value"]))
    return Call("ttnn.pad", (context.read(step.inputs[0]), str(pads), f"value={value}", _memory(step)))


def repeat(step: CardStep, context: Context) -> Call:
    """Copies along each axis."""
    return Call("ttnn.repeat", (context.read(step.inputs[0]), str(list(step.options["counts"])), _memory(step)))


def embedding(step: CardStep, context: Context) -> Call:
    """Rows of a table; the result has three axes.

    Raises:
        ValueError: it is to have others.
    """
    if len(step.result.shape) != 3:
        raise ValueError(f"embedding {step.result.name}: ttnn gives [1, count, channels], not {step.result.shape}")
    indices, table = (context.read(name) for name in step.inputs)
    return Call(
        "ttnn.embedding",
        (
            indices,
            table,
            "padding_idx=None",
            f"layout={layout_of(step.result)}",
            "embeddings_type=ttnn.EmbeddingsType.GENERIC",
            f"dtype={dtype_of(step.result)}",
            _memory(step),
        ),
    )


def copy(step: CardStep, context: Context) -> Call:
    """A tensor into another that stays where it is: state."""
    source, target = (context.read(name) for name in step.inputs)
    return Call("ttnn.copy", (source, target))


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(one) for one in numbers)


def _memory(step: CardStep) -> str:
    return f"memory_config={memory_of(step.result)}"


MOVEMENTS: Mapping[str, Emitted] = {
    "upload": upload,
    "download": download,
    "typecast": typecast,
    "to_layout": to_layout,
    "permute": permute,
    "reshape": reshape,
    "slice": cut,
    "concat": concat,
    "pad": pad,
    "repeat": repeat,
    "embedding": embedding,
    "copy": copy,
}
VIEWS = frozenset({"to_layout", "permute", "reshape", "slice", "pad", "repeat", "typecast", "concat"})
"""Operations whose result may be their input under another name, where there is nothing to move."""
