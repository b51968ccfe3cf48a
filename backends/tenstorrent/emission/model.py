"""Model: a whole Program as the text of a file."""

from collections.abc import Iterator, Sequence

from backends.tenstorrent.cards import CARDS
from backends.tenstorrent.emission.code import FIDELITIES, WIDTH, Call, Context, called, dtype_of, filled, layout_of
from backends.tenstorrent.emission.lifetimes import lifetimes
from backends.tenstorrent.emission.operations import OPS, call_of
from backends.tenstorrent.program import CardStep, HostStep, Program


def emit(program: Program) -> str:
    """Write a program down as `model.py`: STATE, `load(device, folder)`, `forward(device, weights, inputs, state)`.

    Every card step is one call, with every argument that has a say in precision; host steps are `host.host_N(...)`,
    which gives a tuple. What a step makes is deallocated after its last reader.

    Raises:
        ValueError: a step that ttnn has no call for, its place and reason in the message; L1 overflow among them.
    """
    context = context_of(program)
    body = "\n".join(_forward(program, context))
    in_l1 = any(value.memory == "l1" for value in context.values.values())
    memory = {"DRAM": "ttnn.DRAM_MEMORY_CONFIG"} | ({"L1": "ttnn.L1_MEMORY_CONFIG"} if in_l1 else {})
    configs = "\n".join(f"{name} = {text}" for name, text in (memory | context.configs).items())
    parts = [_head(program), configs + "\n", *_tables(program), _load(), body]
    return "\n".join(parts) + "\n"


def calls_of(program: Program) -> tuple[str, ...]:
    """The calls of one run of `forward` in order, deallocations apart: those of card steps, then copies into state."""
    steps = tuple(call_of(step) for step in program.steps if isinstance(step, CardStep))
    return (*steps, *("ttnn.copy" for _ in _updates(program)))


def context_of(program: Program) -> Context:
    """What the text of a program's steps needs to know of it."""
    values = {value.name: value for value in program.inputs}
    values |= {name: constant.value for name, constant in program.constants.items()}
    values |= {name: state.value for name, state in program.states.items()}
    for step in program.steps:
        for value in (step.result,) if isinstance(step, CardStep) else step.results:
            values[value.name] = value
    return Context(
        CARDS[program.card],
        values,
        program.constants,
        frozenset(program.states),
        frozenset(value.name for value in program.inputs),
    )


def _head(program: Program) -> str:
    host = any(isinstance(step, HostStep) for step in program.steps)
    return (
        f'"""A model on {program.card}, written by precision-search: plain calls of ttnn 0.81.1.\n\n'
        "`load` reads the weights, `forward` runs the model once; run.py shows how. Every call says what it computes\n"
        'in; nothing is left to ttnn to choose.\n"""\n\n'
        "from pathlib import Path\n\n"
        "import numpy as np\nimport runtime\nimport ttnn\n"
        + ("\n# host.py holds what is left to torch.\n" if host else "")
    )


def _tables(program: Program) -> Iterator[str]:
    names = {
        host: [f'"{name}"' for name, one in program.constants.items() if one.on_host is host] for host in (False, True)
    }
    states = [
        f'"{name}": ({state.value.shape}, {dtype_of(state.value)}, {layout_of(state.value)})'
        for name, state in program.states.items()
    ]
    yield _table("ON_CARD", "()", names[False])
    yield '"""Weights that go to the card as their files have them."""'
    yield _table("ON_HOST", "()", names[True])
    yield '"""Weights of convolutions: ttnn prepares them and moves them to the card at the first call."""'
    yield _table("STATE", "{}", states)
    yield '"""What stays on the card from one run to the next, zeros at first: shape, type, layout."""\n\n'


def _table(name: str, brackets: str, items: Sequence[str]) -> str:
    first, last = brackets[0], brackets[1]
    return f"{name} = {first}\n{filled(items, '    ')}\n{last}" if items else f"{name} = {brackets}"


def _load() -> str:
    return (
        "def load(device, folder):\n"
        '    """Read the weights of an exported folder: name -> tensor, on the card but for those of convolutions."""\n'
        "    weights = {}\n"
        "    for name in (*ON_CARD, *ON_HOST):\n"
        '        tensor = ttnn.load_tensor(str(Path(folder) / "weights" / f"{name}.tensorbin"))\n'
        "        on_card = name in ON_CARD\n"
        "        weights[name] = ttnn.to_device(tensor, device, memory_config=DRAM) if on_card else tensor\n"
        "    return weights\n\n"
    )


def _forward(program: Program, context: Context) -> Iterator[str]:
    yield "def forward(device, weights, inputs, state):"
    yield '    """Run the model once on host arrays by name; give host arrays by name, and move the state on."""'
    if any(isinstance(step, HostStep) for step in program.steps):
        yield "    import host"
    dead = lifetimes(program)
    source, hosted = None, 0
    for index, step in enumerate(program.steps):
        if step.source != source:
            source = step.source
            named = isinstance(step, CardStep) and step.site == source
            yield "" if named else f"\n    # {source or 'the model'}"
        if isinstance(step, HostStep):
            yield from _host(step, hosted, context)
            hosted += 1
        else:
            yield from _card(step, context)
        for name in dead.get(index, ()):
            yield f"    ttnn.deallocate({name})"
    updates = _updates(program)
    if updates:
        yield "\n    # What the next run begins with."
    for name, update in updates:
        yield f'    ttnn.copy({context.read(update)}, state["{name}"])'
    for name in dict.fromkeys(update for _, update in updates if update not in program.states):
        yield f"    ttnn.deallocate({name})"
    given = [f'"{part}": {context.read(name)}' for part, name in program.outputs.items()]
    yield "    " + _braced("return {", given)


def _braced(lead: str, items: Sequence[str]) -> str:
    line = lead + ", ".join(items) + "}"
    return line if len(line) + 4 <= WIDTH else f"{lead}\n{filled(items, ' ' * 8)}\n    }}"


def _card(step: CardStep, context: Context) -> Iterator[str]:
    if step.op not in OPS:
        raise ValueError(f"{step.source or 'the model'}: no operation {step.op!r}; there are {', '.join(sorted(OPS))}")
    try:
        call = OPS[step.op](step, context)
    except ValueError as error:
        raise ValueError(f"{step.site or step.source or step.result.name}: {error}") from error
    if step.site is not None:
        yield f"    # {step.site}: {_scheme(step, context)}"
    yield f"    {_assigned(step, call)}"


def _assigned(step: CardStep, call: Call) -> str:
    if step.op == "copy":
        return called(call.function, call.arguments, indent=4)
    lead = f"{call.assigned or step.result.name} = "
    return lead + called(call.function, call.arguments, lead + call.after, 4) + call.after


def _scheme(step: CardStep, context: Context) -> str:
    operands = [context.values[name] for name in step.inputs]
    words = [f"{operands[0].dtype} activations"]
    if len(operands) > 1 and step.inputs[1] in context.constants:
        words.insert(0, f"{operands[1].dtype} weights")
    if step.compute is not None:
        words.append(FIDELITIES[step.compute.fidelity])
        words.append("fp32 sums" if step.compute.fp32_accumulation else "bf16 sums")
        if step.compute.packer_l1_acc:
            words.append("summed by the packer")
    width = step.options.get("in0_block_w")
    words.append("all of K at once" if width is None else f"blocks of {width} tiles of K")
    return ", ".join(words)


def _host(step: HostStep, index: int, context: Context) -> Iterator[str]:
    results = ", ".join(value.name for value in step.results)
    lead = f"{results} = " if len(step.results) > 1 else f"({results},) = "
    yield "    " + lead + called(f"host.host_{index}", [context.read(name) for name in step.inputs], lead, 4)


def _updates(program: Program) -> list[tuple[str, str]]:
    """State and what it is from then on, so that no state is written before another took it over."""
    copied = {step.inputs[1] for step in program.steps if isinstance(step, CardStep) and step.op == "copy"}
    waiting = {
        name: state.update for name, state in program.states.items() if state.update != name and name not in copied
    }
    ordered: list[tuple[str, str]] = []
    while waiting:
        free = [name for name in waiting if name not in waiting.values()]
        if not free:
            raise ValueError(f"states {', '.join(waiting)} take over from each other in a circle; copy one in a step")
        ordered += [(name, waiting.pop(name)) for name in free]
    return ordered
