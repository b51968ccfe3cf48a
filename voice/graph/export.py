"""Export: a voice, or a module of it, brought to a SiteGraph by torch.export."""

import contextlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Graph, GraphModule, Node

from voice.graph.cleaning import clean, is_site, path_of, set_values
from voice.graph.site_graph import SiteGraph
from voice.graph.tracing import ROOT, GraphError, trace
from voice.model import Clip, Rendering, Voice


def export_graph(voice: Voice, clip: Clip) -> SiteGraph:
    """Bring a voice on a clip to a graph.

    It is rendered once for real, for the noise that it draws and for the sizes that durations make, and traced by
    torch.export; the graph is held against the real run. It is good for other inputs of the same shapes, and the same
    sums of durations. Inputs that are whole numbers without axes, seeds for one, are part of it.

    Raises:
        GraphError: the voice cannot be brought to a graph, or the graph computes something else; says where, and what
            can be done.
    """
    named = _input_names(voice, clip)
    moving = [index for index, tensor in enumerate(clip.inputs) if not _is_number(tensor)]
    names: tuple[str, ...] = ()

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        nonlocal names
        inputs = list(clip.inputs)
        for index, tensor in zip(moving, tensors, strict=True):
            inputs[index] = tensor
        rendering = voice.render(replace(clip, inputs=tuple(inputs)))
        names = _part_names(rendering)
        return rendering.parts

    examples = {named[index]: clip.inputs[index] for index in moving}
    fixed = {named[index]: tensor for index, tensor in enumerate(clip.inputs) if index not in moving}
    return _build(voice.module, voice.module, run, examples, {}, lambda: names, f"{voice.name} on {clip.name}", fixed)


def graph_of(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    states: Mapping[str, Tensor] | None = None,
    *,
    parts: Sequence[str],
    sites_of: nn.Module | None = None,
) -> SiteGraph:
    """Bring a module to a graph: one step of a stream or of a decoder.

    Args:
        module: its forward takes the inputs, then the states, in the order of the mappings, and gives a tuple: one
            tensor for each of `parts`, then the new value of each state. It must write to none of them in place.
        inputs: examples by name, a Python identifier.
        states: by name; the shapes count, for they are zeros at first.
        parts: names of the first results.
        sites_of: the module whose paths are the names of sites, `module` or one in it; None is `module`.

    Raises:
        GraphError: as `export_graph`; or results do not fit `parts` and `states`.
    """
    kept = dict(states or {})

    def run(*tensors: Tensor) -> Sequence[Tensor]:
        results = module(*tensors)
        results = (results,) if isinstance(results, Tensor) else tuple(results)
        if len(results) != len(parts) + len(kept):
            raise GraphError(
                f"{type(module).__name__} gives {len(results)} tensors; {len(parts)} parts ({', '.join(parts)}) and"
                f" {len(kept)} states were announced"
            )
        return results

    what = type(module).__name__
    return _build(module, sites_of or module, run, dict(inputs), kept, lambda: tuple(parts), what, {})


def _build(
    module: nn.Module,
    sites_of: nn.Module,
    run: Callable[..., Sequence[Tensor]],
    examples: Mapping[str, Tensor],
    states: Mapping[str, Tensor],
    names: Callable[[], tuple[str, ...]],
    what: str,
    fixed: Mapping[str, Tensor],
) -> SiteGraph:
    tensors = [*examples.values(), *states.values()]
    traced = trace(module, sites_of, run, tensors, what)
    graph, constants = _flat(traced.program, [*examples, *states], what)
    with torch.no_grad():
        graph, constants = clean(graph, constants, traced.noise, what)
    parts = names() + _keep_dead_ends(graph, len(names()))
    root = next((f"{path}." for path, child in module.named_modules() if path and child is sites_of), "")
    for node in graph.nodes:
        node.meta = {"path": f"{path_of(node)}.".removeprefix(root).removesuffix(".")}
    built = GraphModule(constants, graph, "SiteGraph")
    set_values(built, tensors)
    made = SiteGraph(built, tuple(examples), parts, tuple(states), dict(examples), dict(fixed))
    _check(made, states, traced.results, what)
    return made


def _check(graph: SiteGraph, states: Mapping[str, Tensor], expected: Sequence[Tensor], what: str) -> None:
    """Hold a graph against the real run."""
    results = graph.run(states=states)
    results = (*results[: len(expected) - len(states)], *results[len(results) - len(states) :])
    for index, (result, wanted) in enumerate(zip(results, expected, strict=True)):
        if not torch.allclose(result.double(), wanted.double(), rtol=1e-3, atol=1e-5, equal_nan=True):
            raise GraphError(
                f"{what}: result {index} of the graph is {(result - wanted).abs().max():g} away from that of the model;"
                " a model must compute the same at every run of a clip: no caches, no generators of numpy or Python"
            )


def _flat(program: ExportedProgram, names: Sequence[str], what: str) -> tuple[Graph, dict[str, Any]]:
    """The graph with parameters as get_attr, and placeholders of the names given; and the constants."""
    graph, mapping = Graph(), dict[Node, Node]()
    graph.graph_copy(program.graph, mapping)
    signature = program.graph_signature
    called = dict(zip(signature.user_inputs, names, strict=True))
    written = [str(name).removeprefix(f"{ROOT}.") for name in signature.buffers_to_mutate.values()]
    written += [called[name] for name in signature.user_inputs_to_mutate.values()]
    if written:
        raise GraphError(
            f"{what} writes to {', '.join(written)} in place, and a graph has no such effects:"
            " give the new value as a result"
        )
    held = {**program.state_dict, **program.constants}
    constants: dict[str, Any] = {}
    specs = {spec.arg.name: spec for spec in signature.input_specs}
    for node in list(program.graph.nodes):
        if node.op != "placeholder":
            continue
        spec, copy = specs[node.name], mapping[node]
        if spec.kind == InputKind.USER_INPUT:
            copy.target = called[node.name]
            copy._rename(called[node.name])
            continue
        name = str(spec.target).removeprefix(f"{ROOT}.")
        constants[name] = held[spec.target]
        with graph.inserting_before(copy):
            constant = graph.get_attr(name)
        constant.meta = dict(copy.meta)
        copy.replace_all_uses_with(constant)
        graph.erase_node(copy)
    (output,) = program.graph.find_nodes(op="output")
    kinds = [spec.kind for spec in signature.output_specs]
    assert all(kind == OutputKind.USER_OUTPUT for kind in kinds)
    graph.output(tuple(mapping[value] for value in output.args[0]))
    return graph, constants


def _keep_dead_ends(graph: Graph, count: int) -> tuple[str, ...]:
    """Make the results of sites that nothing reads outputs, after the first `count`; give their names."""
    ends = [node for node in graph.nodes if is_site(node) and not node.users]
    (output,) = graph.find_nodes(op="output")
    results = list(output.args[0])
    output.args = ((*results[:count], *ends, *results[count:]),)
    calls: Counter[str] = Counter()
    names = []
    for node in ends:
        calls[site := str(node.args[0])] += 1
        names.append(site if calls[site] == 1 else f"{site}.{calls[site]}")
    return tuple(names)


class _Noted(Exception):  # noqa: N818 (no error: it ends a render of which nothing more is wanted)
    pass


def _input_names(voice: Voice, clip: Clip) -> list[str]:
    """Names of the clip's inputs: those that the module's forward gives them, where it gets them as they are."""
    names = [f"input_{index}" for index in range(len(clip.inputs))]
    parameters = [
        parameter.name
        for parameter in inspect.signature(voice.module.forward).parameters.values()
        if parameter.kind != parameter.VAR_POSITIONAL
    ]

    def note(_module: nn.Module, args: tuple[Any, ...]) -> None:
        for parameter, value in zip(parameters, args, strict=False):
            same = [index for index, tensor in enumerate(clip.inputs) if value is tensor]
            if len(same) == 1:
                names[same[0]] = parameter
        raise _Noted

    hook = voice.module.register_forward_pre_hook(note)
    try:
        with torch.random.fork_rng(devices=[]), contextlib.suppress(_Noted):
            voice.render(clip)
    finally:
        hook.remove()
    return names


def _part_names(rendering: Rendering) -> tuple[str, ...]:
    return (*(() if rendering.waveform is None else ("waveform",)), *rendering.logits)


def _is_number(tensor: Tensor) -> bool:
    return tensor.ndim == 0 and not tensor.is_floating_point()
