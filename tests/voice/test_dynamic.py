"""Dynamic graphs against modules at lengths that none of their graphs had."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from voice.graph import DynamicError, DynamicGraph, SiteGraph, dynamic_graph, graph_of, site_nodes
from voice.graph.dynamic_sizes import Axis, Size
from voice.intercept import intercept
from voice.site_call import SiteCall

torch.set_num_threads(1)
LENGTHS = (5, 7, 12)


class Lambda(nn.Module):
    """A forward as a function of [time, 4], with layers at hand."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.linear, self.conv = nn.Linear(4, 4), nn.Conv1d(4, 4, 3, padding=1)
            self.register_buffer("table", torch.randn(64, 4))

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self, *inputs)


def x_of(length: int) -> dict[str, Tensor]:
    return {"x": torch.randn(length, 4, generator=torch.Generator().manual_seed(length))}


def graphs_of(
    function: Callable[..., object], clips: Sequence[dict[str, Tensor]] | None = None
) -> tuple[Lambda, list[SiteGraph]]:
    module = Lambda(function).eval().requires_grad_(False)
    return module, [graph_of(module, clip, parts=("y",)) for clip in clips or [x_of(length) for length in LENGTHS]]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


EVERYWHERE: dict[str, Callable[..., Tensor]] = {
    "no sizes": lambda m, x: m.conv(m.linear(x).T).tanh(),
    "reshape": lambda m, x: m.linear(x).view(x.shape[0], 2, 2).transpose(0, 1).reshape(2 * x.shape[0], 2),
    "two sizes": lambda m, x: torch.outer(x[:, 0], x[:, 1]).reshape(1, x.shape[0], x.shape[0]) * 2,
    "a square": lambda m, x: (x[:, :1] * x[:, 1:2].T).reshape(-1).cumsum(0),
    "expand": lambda m, x: x.sum(0, keepdim=True).expand(x.shape[0], 4) + x[:, :1].expand(x.shape[0], 4),
    "from the end": lambda m, x: x[-2] + x[1:-1] - x[2:] + x[-4:].sum(0),
    "from the middle": lambda m, x: torch.cat([x, x])[x.shape[0] - 2 : x.shape[0] + 3],
    "a later select": lambda m, x: torch.cat([x, x])[x.shape[0]],
    "a pad": lambda m, x: F.pad(x[:3], (0, 0, 0, 2 * x.shape[0] + 1)),
    "stretched": lambda m, x: x.repeat_interleave(3, dim=0)[: 3 * x.shape[0] - 1].unfold(0, 2, 1).sum(-1),
    "an integer": lambda m, x: x / x.shape[0] + x * (x.shape[0] + 1),
    "a float": lambda m, x: x * (1 / x.shape[0]) + x * (0.1 * x.shape[0] + 0.7) + x * (1 / (2 * x.shape[0] - 1)),
    "a float of an integer": lambda m, x: x.long() * x.shape[0] + x.long() * float(x.shape[0]) + x.shape[0] * 2.0 * x,
    "positions": lambda m, x: m.linear(x) * torch.arange(x.shape[0])[:, None] + m.table[: x.shape[0]],
    "a causal mask": lambda m, x: torch.softmax(x @ x.T + torch.full((x.shape[0],) * 2, -1e9).triu(1), -1),
    "zeros": lambda m, x: torch.cat([torch.zeros(1, x.shape[0] * 2), x.new_full((1, x.shape[0] * 2), 0.5)]) + x.sum(),
    "nothing": lambda m, x: x + torch.full((x.shape[0], 4), float("nan")).nan_to_num(0.25),
}


@cache
def dynamic_of(spelling: str) -> tuple[Lambda, DynamicGraph]:
    module, graphs = graphs_of(EVERYWHERE[spelling])
    return module, dynamic_graph(graphs)


@pytest.mark.parametrize("spelling", EVERYWHERE)
def test_at_other_lengths_it_is_the_module(spelling: str) -> None:
    module, dynamic = dynamic_of(spelling)
    assert dynamic.inputs == ("x",)
    assert dynamic.symbols == {"x_length": (Axis("x", 0, Size((("x_length", Fraction(1)),))),)}
    for length in (6, 11, *LENGTHS):
        given = x_of(length)
        expected = module(given["x"])
        torch.testing.assert_close(dynamic.run(given)[0], expected, rtol=1e-5, atol=1e-6)
        # The module of a graph runs by itself, too.
        torch.testing.assert_close(dynamic.module(given["x"])[0], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("spelling", ["a square", "from the middle", "a float", "a causal mask", "zeros", "stretched"])
def test_torch_exports_it_with_its_axis_symbolic(spelling: str) -> None:
    module, dynamic = dynamic_of(spelling)
    shapes = tuple(dynamic.dynamic_shapes().values())
    program = torch.export.export(dynamic.module, tuple(dynamic.examples.values()), dynamic_shapes=shapes)
    (x,) = [node for node in program.graph.nodes if node.op == "placeholder" and node.name == "x"]
    assert isinstance(x.meta["val"].shape[0], torch.SymInt)
    for length in (6, 11, 12):
        given = x_of(length)["x"]
        torch.testing.assert_close(program.module()(given)[0], module(given), rtol=1e-5, atol=1e-6)


def test_nodes_are_as_those_of_a_site_graph() -> None:
    _, graphs = graphs_of(EVERYWHERE["positions"])
    dynamic = dynamic_graph(graphs)
    assert isinstance(dynamic, DynamicGraph)
    assert [node.site for node in site_nodes(dynamic)] == ["linear"]
    assert dynamic.parts == ("y",)
    for node in dynamic.module.graph.nodes:
        assert isinstance(node.meta["path"], str)
        if node.op == "call_function" and isinstance(node.meta["val"], Tensor):
            assert all(type(size) is int for size in node.meta["val"].shape)
    (output,) = dynamic.module.graph.find_nodes(op="output")
    assert output.args[0][0].meta["val"].shape == (5, 4)
    assert dynamic.examples["x"] is not None
    assert torch.equal(dynamic.run()[0], graphs[0].run()[0])


def test_a_handler_computes_the_calls_of_sites() -> None:
    module, graphs = graphs_of(EVERYWHERE["no sizes"])
    given = x_of(9)

    def doubled(call: SiteCall) -> Tensor:
        return 2 * call.compute()

    with intercept(module, doubled):
        expected = module(given["x"])
    torch.testing.assert_close(dynamic_graph(graphs).run(given, doubled)[0], expected)


def test_states_are_kept() -> None:
    class Step(nn.Module):
        def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
            longer = torch.cat([past, x])
            return longer[2:] + longer[:-2], longer[-2:]

    graphs = [graph_of(Step(), x_of(n), {"past": torch.zeros(2, 4)}, parts=("y",)) for n in LENGTHS]
    dynamic = dynamic_graph(graphs)
    assert dynamic.states == ("past",)
    assert dynamic.dynamic_shapes()["past"] is None
    x, past = x_of(8)["x"], torch.ones(2, 4)
    y, new = dynamic.run({"x": x}, states={"past": past})
    torch.testing.assert_close(y, x + torch.cat([past, x[:-2]]))
    assert torch.equal(new, x[-2:])


def test_tables_reach_as_far_as_in_the_longest_clip() -> None:
    _, graphs = graphs_of(lambda m, x: x * m.table[: x.shape[0]])
    dynamic = dynamic_graph(graphs)
    assert dynamic.limits["x_length"].largest == 12
    assert "read by aten.mul.Tensor" in dynamic.limits["x_length"].constant
    with pytest.raises(ValueError, match=r"x_length is 13 and at most 12, for which there is constant .*longer clip"):
        dynamic.run(x_of(13))


def test_what_is_one_number_has_no_limit() -> None:
    module, graphs = graphs_of(EVERYWHERE["zeros"])
    dynamic = dynamic_graph(graphs)
    assert dynamic.limits == {}
    assert max(tensor.numel() for tensor in dynamic.module.buffers()) == 2
    torch.testing.assert_close(dynamic.run(x_of(100))[0], module(x_of(100)["x"]))


def test_noise_is_an_input() -> None:
    def noisy(m: Lambda, x: Tensor) -> Tensor:
        return torch.cat([x + 0.5 * drawn(x.shape[0], 4), drawn(2 * x.shape[0] + 1, 4), drawn(3, 4)])

    module, graphs = graphs_of(noisy)
    dynamic = dynamic_graph(graphs)
    assert dynamic.noise == ("noise_0", "noise_1")
    assert dynamic.inputs == tuple(dynamic.examples) == ("x", "noise_0", "noise_1")
    assert dynamic.limits == {}
    assert torch.equal(dynamic.examples["noise_0"], 0.5 * drawn(5, 4))
    given = x_of(9)
    lengths = dynamic.lengths_of(given)
    assert lengths == {"x_length": 9}
    assert [dynamic.shape_of(name, lengths) for name in dynamic.inputs] == [(9, 4), (9, 4), (19, 4)]
    given |= {"noise_0": 0.5 * drawn(9, 4), "noise_1": drawn(19, 4)}
    assert torch.equal(dynamic.run(given)[0], module(given["x"]))
    program = torch.export.export(
        dynamic.module, tuple(dynamic.examples.values()), dynamic_shapes=tuple(dynamic.dynamic_shapes().values())
    )
    assert torch.equal(program.module()(*given.values())[0], module(given["x"]))
    with pytest.raises(ValueError, match=r"noise_1 is float32\[18, 4\] and must be \[19, 4\] at x_length 9"):
        dynamic.run({**given, "noise_1": drawn(18, 4)})


def test_noise_of_one_shape_is_an_input_where_it_is_drawn_anew_and_else_a_constant() -> None:
    def seeded(seeds: Sequence[int]) -> DynamicGraph:
        def graph(length: int, seed: int) -> SiteGraph:
            def noisy(m: Lambda, x: Tensor) -> Tensor:
                return x + torch.randn(4, generator=torch.Generator().manual_seed(seed))

            return graph_of(Lambda(noisy).eval(), x_of(length), parts=("y",))

        return dynamic_graph([graph(length, seed) for length, seed in zip(LENGTHS, seeds, strict=True)])

    assert seeded((1, 2, 3)).noise == ("noise_0",)
    assert seeded((1, 1, 1)).noise == ()


def two(first: int, second: int) -> dict[str, Tensor]:
    return {"x": x_of(first)["x"], "z": x_of(second)["x"] + 1}


def joined(m: Lambda, x: Tensor, z: Tensor) -> Tensor:
    both = torch.cat([x, z, z])
    return (m.linear(both) + drawn(both.shape[0], 4))[x.shape[0] :]


def test_two_lengths() -> None:
    module, graphs = graphs_of(joined, [two(5, 7), two(6, 3), two(9, 4), two(11, 9)])
    dynamic = dynamic_graph(graphs)
    assert [str(axis.size) for axis in dynamic.symbols["x_length"]] == ["x_length", "x_length + 2*z_length"]
    assert [axis.input for axis in dynamic.symbols["z_length"]] == ["z", "noise_0"]
    assert dynamic.shortest == {"x_length": 5, "z_length": 3}
    given = two(8, 6)
    given["noise_0"] = drawn(20, 4)
    expected = module(given["x"], given["z"])
    torch.testing.assert_close(dynamic.run(given)[0], expected)
    shapes = tuple(dynamic.dynamic_shapes().values())
    program = torch.export.export(dynamic.module, tuple(dynamic.examples.values()), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(*given.values())[0], expected)


def test_a_table_for_two_lengths_ends_where_their_sum_does() -> None:
    def placed(m: Lambda, x: Tensor, z: Tensor) -> Tensor:
        return torch.cat([x, z]) * torch.arange(x.shape[0] + z.shape[0])[:, None]

    module, graphs = graphs_of(placed, [two(5, 7), two(6, 3), two(9, 4), two(11, 9)])
    dynamic = dynamic_graph(graphs)
    assert {symbol: limit.largest for symbol, limit in dynamic.limits.items()} == {"x_length": 17, "z_length": 15}
    assert torch.equal(dynamic.run(two(4, 16))[0], module(*two(4, 16).values()))
    with pytest.raises(ValueError, match=r"x_length \+ z_length is 21 and at most 20"):
        dynamic.run(two(5, 16))


def test_axes_that_follow_from_another_share_its_length() -> None:
    def both(m: Lambda, x: Tensor, z: Tensor) -> Tensor:
        return torch.cat([x.repeat_interleave(2, dim=0), x[:1]]) + z

    module, graphs = graphs_of(both, [two(n, 2 * n + 1) for n in LENGTHS])
    dynamic = dynamic_graph(graphs)
    assert [str(axis.size) for axis in dynamic.symbols["x_length"]] == ["x_length", "2*x_length + 1"]
    torch.testing.assert_close(dynamic.run(two(8, 17))[0], module(*two(8, 17).values()))
    with pytest.raises(ValueError, match=r"z is float32\[16, 4\] and must be \[17, 4\] at x_length 8"):
        dynamic.run(two(8, 16))
    # Also where the longer comes first.
    swapped = Lambda(lambda m, z, x: both(m, x, z)).eval()
    clips = [two(length, 2 * length + 1) for length in LENGTHS]
    graphs = [graph_of(swapped, {"z": clip["z"], "x": clip["x"]}, parts=("y",)) for clip in clips]
    assert list(dynamic_graph(graphs).symbols) == ["x_length"]


def test_inputs_that_do_not_fit_are_named() -> None:
    dynamic = dynamic_graph(graphs_of(EVERYWHERE["no sizes"])[1])
    with pytest.raises(ValueError, match=r"x is float32\[8, 3\] and must be float32\[5, 4\] but for axis 0"):
        dynamic.run({"x": torch.zeros(8, 3)})
    with pytest.raises(ValueError, match=r"x is missing; z is not one of x"):
        dynamic.run({"z": torch.zeros(8, 3)})


def test_a_size_that_would_be_no_whole_number_is_refused() -> None:
    clips = [x_of(length) for length in (6, 8, 14)]
    _, graphs = graphs_of(lambda m, x: torch.cat([x, x])[x.shape[0] // 2 :], clips)
    dynamic = dynamic_graph(graphs)
    assert dynamic.run(x_of(10))[0].shape == (15, 4)
    with pytest.raises(ValueError, match=r"a size of 1/2\*x_length is 11/2 at x_length 11, and must be a whole number"):
        dynamic.run(x_of(11))


def other_layer(m: Lambda, x: Tensor) -> Tensor:
    return m.linear(x) if x.shape[0] < 10 else x.sin()


def other_axis(m: Lambda, x: Tensor) -> Tensor:
    return x.sum(0 if x.shape[0] < 10 else 1)


def other_operand(m: Lambda, x: Tensor) -> Tensor:
    sine, cosine = x.sin(), x.cos()
    return sine - cosine if x.shape[0] < 10 else cosine - sine


def other_padding(m: Lambda, x: Tensor) -> Tensor:
    return F.conv1d(x.T, m.conv.weight, padding=x.shape[0])


REFUSED: dict[str, tuple[Callable[..., object], str]] = {
    "another operation": (other_layer, r"constant linear.weight \(read by .* at linear\) is in another graph input x"),
    "another number of axes": (other_axis, r"aten.sum.dim_IntList at the module itself has the sizes 0, 0, 1"),
    "another operand": (
        other_operand,
        r"aten.sub.Tensor at .* argument the result of aten.sin.default at .* another the result of aten.cos",
    ),
    "another geometry": (other_padding, r"precision_search.site.default at .* has in one graph the argument"),
    "a size by halves": (
        lambda m, x: x[: x.shape[0] // 2],
        r"aten.slice.Tensor at .* has the sizes 2, 3, 6, no affine",
    ),
    "a root": (lambda m, x: x * x.shape[0] ** -0.5, r"aten.mul.Tensor .* has the floats .* 1 over one \(x_length 5, 7"),
    "a number": (
        lambda m, x: x * torch.tensor(float(x.shape[0])),
        r"constant lifted_tensor_0 .*holds other numbers in each",
    ),
    "a window": (lambda m, x: x * torch.hann_window(x.shape[0])[:, None], r"constant_0 \(read by .*not the beginning"),
    "a table by halves": (
        lambda m, x: x.sum() * m.table[: x.shape[0] // 2],
        r"constant .*, axis 0, has the sizes 2, 3",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_size_is_refused(case: str) -> None:
    function, message = REFUSED[case]
    _, graphs = graphs_of(function)
    with pytest.raises(DynamicError, match=message):
        dynamic_graph(graphs)


def test_too_few_lengths_are_refused() -> None:
    _, graphs = graphs_of(EVERYWHERE["no sizes"])
    with pytest.raises(DynamicError, match="3 graphs of different lengths at least, got 2"):
        dynamic_graph(graphs[:2])
    with pytest.raises(DynamicError, match="all of the same length"):
        dynamic_graph(graphs[:1] * 3)
    with pytest.raises(DynamicError, match=r"2 different lengths were given, and 3 .* axis 0 of x \(5, 7, 7\)"):
        dynamic_graph([*graphs[:2], graphs[1]])
    _, graphs = graphs_of(joined, [two(5, 7), two(6, 3), two(9, 4)])
    with pytest.raises(DynamicError, match=r"3 different lengths were given, and 4 at least"):
        dynamic_graph(graphs)


def test_lengths_that_change_in_step_are_refused() -> None:
    _, graphs = graphs_of(joined, [two(5, 6), two(7, 9), two(9, 12), two(11, 15)])
    with pytest.raises(DynamicError, match=r"axis 0 of z .* 3/2\*x_length - 3/2 in all graphs: give clips in which"):
        dynamic_graph(graphs)


def test_graphs_of_different_ends_are_refused() -> None:
    _, graphs = graphs_of(EVERYWHERE["no sizes"])
    module = Lambda(EVERYWHERE["no sizes"]).eval()
    other = graph_of(module, x_of(9), parts=("waveform",))
    with pytest.raises(DynamicError, match=r"different parts, \['y'\] and \['waveform'\]"):
        dynamic_graph([*graphs, other])
    other = graph_of(module.double(), {"x": x_of(9)["x"].double()}, parts=("y",))
    with pytest.raises(DynamicError, match="different inputs"):
        dynamic_graph([*graphs, other])


def test_another_voice_is_refused() -> None:
    module, graphs = graphs_of(EVERYWHERE["no sizes"])
    other = Lambda(EVERYWHERE["no sizes"]).eval()
    torch.nn.init.zeros_(other.linear.weight)
    with pytest.raises(DynamicError, match=r"linear.weight \(read by .* at linear\) holds other numbers in each"):
        dynamic_graph([*graphs, graph_of(other, x_of(9), parts=("y",))])
    assert module.linear.weight.any()
