"""Cleaning: of a traced graph what is computed, each thing written in one way.

Whatever depends on no placeholder is a constant, noise too, which is named `noise_0` and so on, also what is made of
it; no operation that changes nothing is left, and none that is there twice; `voice.graph.canon` says how the others are
written. A call of a site is never a constant, never merged, and never dead.
"""

import hashlib
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, GraphModule, Interpreter, Node

from voice.graph.canon import is_idle_dropout, name_of, rewrite
from voice.graph.tracing import GraphError, draws_by_input, is_pure_draw

SITE = torch.ops.precision_search.site.default
_LIKES = ("zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full")
_CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range")


def clean(
    graph: Graph, constants: Mapping[str, Tensor], noise: Sequence[Tensor], what: str
) -> tuple[Graph, dict[str, Tensor]]:
    """Bring a graph to the form above.

    Args:
        graph: placeholders, get_attr of `constants`, aten; changed in place.
        constants: by name.
        noise: what the operations that draw gave, in order.
        what: the model, as messages name it.

    Returns:
        The graph, and the constants that it still reads, by name.

    Raises:
        GraphError: naming every operation that draws noise by its input, or has no fixed shape.
    """
    _drop_checks(graph)
    _refuse(graph, what)
    held: dict[str, Any] = dict(constants)
    drawn = _fold_noise(graph, held, noise, what)
    for node in list(graph.nodes):
        if node.op == "call_function":
            rewrite(graph, node)
    _drop_dead(graph)
    _fold(graph, held, drawn)
    for node in list(graph.nodes):
        if node.op == "call_function":
            _drop_guard(node, held)
    _drop_dead(graph)
    _merge(graph)
    _drop_dead(graph)
    read = dict.fromkeys(str(node.target) for node in graph.nodes if node.op == "get_attr")
    return graph, {name: held[name] for name in read}


def set_values(module: GraphModule, examples: Sequence[Tensor]) -> None:
    """Give every node `meta["val"]`: a fake tensor with its shape and type."""
    with FakeTensorMode() as mode:
        _Shapes(module, mode).run(*map(mode.from_tensor, examples))


class _Shapes(Interpreter):
    """Runs a graph on fake tensors and notes what each node gives."""

    def __init__(self, module: GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(module)
        self._mode = mode

    def run_node(self, node: Node) -> Any:
        """Run one node."""
        result = super().run_node(node)
        result = self._mode.from_tensor(result) if node.op == "get_attr" else result
        node.meta["val"] = result
        return result


def path_of(node: Node) -> str:
    """Path of the module in whose forward a node was traced, "" for the root itself."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return path.partition(".")[2]


def is_site(node: Node) -> bool:
    """Whether a node is a call of a site."""
    return node.op == "call_function" and node.target is SITE


def _drop_checks(graph: Graph) -> None:
    for node in reversed(graph.nodes):
        if name_of(node).startswith(_CHECKS):
            graph.erase_node(node)
    _drop_dead(graph)


def _drop_dead(graph: Graph) -> None:
    """Drop what nothing reads, sites and inputs apart."""
    for node in reversed(graph.nodes):
        if not node.users and node.op in ("call_function", "get_attr") and not is_site(node):
            graph.erase_node(node)


def _refuse(graph: Graph, what: str) -> None:
    faults = []
    for node in graph.nodes:
        value = node.meta.get("val")
        where = f"{node.target} at {path_of(node) or 'the module itself'}"
        if node.op != "call_function":
            continue
        if draws_by_input(node.target) and not is_idle_dropout(node):
            faults.append(f"{where} draws noise by what goes in: render in eval mode, or take the draw as an input")
        elif isinstance(value, Tensor) and not all(isinstance(size, int) for size in value.shape):
            faults.append(f"{where} has a size that depends on numbers in a tensor: force them by the inputs")
    if faults:
        raise GraphError(f"{what}: {len(faults)} operations have no place in a graph:\n  " + "\n  ".join(faults))


def _fold_noise(graph: Graph, held: dict[str, Any], noise: Sequence[Tensor], what: str) -> set[str]:
    """Put noise in the place of what draws it; give the names under which it is held."""
    drawn = set()
    draws = [node for node in graph.nodes if node.op == "call_function" and is_pure_draw(node.target)]
    shapes = [(tuple(node.meta["val"].shape), node.meta["val"].dtype) for node in draws]
    if shapes != [(tuple(tensor.shape), tensor.dtype) for tensor in noise]:
        raise GraphError(
            f"{what}: a real run drew {len(noise)} tensors of noise, the traced one {len(draws)}, or of other shapes;"
            " a model must draw the same at every run of a clip"
        )
    for index, (node, tensor) in enumerate(zip(draws, noise, strict=True)):
        name = next(name for name in (f"noise_{index}", f"noise_{index}_drawn") if name not in held)
        held[name] = tensor
        drawn.add(name)
        with graph.inserting_before(node):
            constant = graph.get_attr(name)
        constant.meta = dict(node.meta)
        node.replace_all_uses_with(constant)
        graph.erase_node(node)
    return drawn


def _fold(graph: Graph, held: dict[str, Any], noise: Collection[str]) -> None:
    """Compute what depends on no input, and hold what is read of it; `noise` are the names of what was drawn."""
    values: dict[Node, Any] = {}
    drawn = {node for node in graph.nodes if node.op == "get_attr" and str(node.target) in noise}
    names = {_key(tensor): name for name, tensor in reversed(held.items()) if isinstance(tensor, Tensor)}

    def known(node: Node) -> Any:
        return values[node]

    for node in graph.nodes:
        if node.op == "get_attr":
            values[node] = held[node.target]
        elif name_of(node) in _LIKES:
            like = node.args[0].meta["val"]
            values[node] = node.target(torch.empty(like.shape, dtype=like.dtype), *node.args[1:], **node.kwargs)
        elif node.op == "call_function" and not is_site(node) and all(i in values for i in node.all_input_nodes):
            args, kwargs = torch.fx.map_arg((node.args, node.kwargs), known)
            values[node] = node.target(*args, **kwargs)
            drawn |= {node} if drawn.intersection(node.all_input_nodes) else set()
    for node, value in values.items():
        readers = [user for user in node.users if user not in values]
        if node.op == "get_attr" or not readers:
            continue
        if not isinstance(value, Tensor):
            _put_number(node, value, readers)
            continue
        name = names.setdefault(_key(value), _free_name(held, "noise" if node in drawn else "constant"))
        held.setdefault(name, value)
        with graph.inserting_before(node):
            constant = graph.get_attr(name)
        constant.meta = {**node.meta, "val": node.meta.get("val")}
        node.replace_all_uses_with(constant, delete_user_cb=lambda user: user not in values)
    _drop_dead(graph)


def _free_name(held: Mapping[str, Any], stem: str) -> str:
    return next(name for index in itertools.count() if (name := f"{stem}_{index}") not in held)


def _put_number(node: Node, value: Any, readers: Sequence[Node]) -> None:
    for reader in readers:
        args, kwargs = torch.fx.map_arg((reader.args, reader.kwargs), lambda n: value if n is node else n)
        reader.args, reader.kwargs = args, kwargs


def _key(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tensors that hold the same in the same layout."""
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return tensor.dtype, tuple(tensor.shape), tensor.stride(), hashlib.sha256(data).digest()


def _drop_guard(node: Node, held: Mapping[str, Any]) -> None:
    """Drop the zeroing of attention's rows that see nothing, where a constant mask leaves each something."""
    if name_of(node) != "masked_fill" or node.args[2] != 0:
        return
    weights, rows = node.args[:2]
    if not (isinstance(weights, Node) and name_of(weights) == "softmax" and isinstance(rows, Node)):
        return
    compared = rows.args[0] if name_of(rows) == "all" else None
    scores = weights.args[0]
    if not (isinstance(compared, Node) and name_of(compared) == "eq" and compared.args == (scores, -math.inf)):
        return
    if isinstance(scores, Node) and _sees_something(scores, held):
        node.replace_all_uses_with(weights)


def _sees_something(scores: Node, held: Mapping[str, Any]) -> bool:
    hidden = torch.zeros(scores.meta["val"].shape, dtype=torch.bool)
    node = scores
    while name_of(node) in ("masked_fill", "add"):
        source, mask = node.args[:2]
        if not (isinstance(source, Node) and isinstance(mask, Node) and mask.op == "get_attr"):
            return False
        values = held[str(mask.target)]
        hidden = hidden | (values if values.dtype == torch.bool else values == -math.inf)
        node = source
    return (is_site(node) or name_of(node) in ("mul", "div")) and not bool(hidden.all(-1).any())


def _merge(graph: Graph) -> None:
    """Let what is computed twice be computed once."""
    first: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if node.op not in ("call_function", "get_attr") or is_site(node):
            continue
        same = first.setdefault((node.target, repr((node.args, node.kwargs))), node)
        if same is not node:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
