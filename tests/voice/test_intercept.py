"""What intercept sees, what it calls it, and that the model computes the same with it."""

import gc
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from voice.intercept import intercept
from voice.site_call import SiteCall

torch.set_num_threads(1)


class Lambda(nn.Module):
    """A module whose forward is a function of itself and the input."""

    def __init__(self, function: Callable[[nn.Module, Tensor], Tensor], **tensors: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, tensor in tensors.items():
            self.register_parameter(name, nn.Parameter(tensor))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def record(module: nn.Module, *inputs: Tensor) -> tuple[list[SiteCall], Tensor]:
    calls: list[SiteCall] = []

    def handler(call: SiteCall) -> Tensor:
        calls.append(call)
        return call.compute()

    with torch.inference_mode(), intercept(module, handler):
        out = module(*inputs)
    return calls, out[0] if isinstance(out, tuple) else out


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


SPELLINGS: dict[str, tuple[Callable[[nn.Module, Tensor], Tensor], str]] = {
    "F.linear": (lambda m, x: F.linear(x, m.w), "linear"),
    "x @ w.T": (lambda m, x: x @ m.w.T, "linear"),
    "x @ w.mT": (lambda m, x: x @ m.w.mT, "linear"),
    "torch.matmul": (lambda m, x: torch.matmul(x, m.w.t()), "linear"),
    "matmul by keyword": (lambda m, x: torch.matmul(input=x, other=m.w.t()), "linear"),
    "linalg.matmul": (lambda m, x: torch.linalg.matmul(x, m.w.t()), "linear"),
    "x.matmul": (lambda m, x: x.matmul(m.w.transpose(0, 1)), "linear"),
    "rmatmul": (lambda m, x: m.w.T.__rmatmul__(x), "linear"),
    "weight on the left": (lambda m, x: (m.w @ x.mT).mT, "linear"),
    "mm": (lambda m, x: torch.mm(x[0], m.w.T)[None], "linear"),
    "x.mm": (lambda m, x: x[0].mm(mat2=m.w.T)[None], "linear"),
    "addmm": (lambda m, x: torch.addmm(m.b, x[0], m.w.T)[None], "linear"),
    "addmm scaled": (lambda m, x: torch.addmm(m.b, x[0], m.w.T, beta=0.5, alpha=2)[None], "linear"),
    "einsum": (lambda m, x: torch.einsum("btc,dc->btd", x, m.w), "linear"),
    "view": (lambda m, x: F.linear(x, m.w.view(1, 4, 3)[0]), "linear"),
    "vector": (lambda m, x: F.linear(x[0, 0], m.w, m.b), "linear"),
    "vector @ w": (lambda m, x: x[0, 0] @ m.w.T, "linear"),
    "bmm": (lambda m, x: torch.bmm(x, x.mT), "matmul"),
    "x @ x": (lambda m, x: x @ x.mT, "matmul"),
    "x @ vector": (lambda m, x: x[0] @ x[0, 0], "matmul"),
    "vector @ vector is none": (lambda m, x: x[0, 0] @ x[0, 1], ""),
    "mv": (lambda m, x: torch.mv(m.w, x[0, 0]), "linear"),
    "x.mv": (lambda m, x: m.w.mv(vec=x[0, 0]), "linear"),
    "w @ vector": (lambda m, x: m.w @ x[0, 0], "linear"),
    "addmv": (lambda m, x: torch.addmv(m.b, m.w, x[0, 0]), "linear"),
    "addmv scaled": (lambda m, x: m.b.addmv(m.w, x[0, 0], beta=0.5, alpha=2), "linear"),
    "inner": (lambda m, x: torch.inner(x, m.w), "linear"),
    "inner of more axes": (lambda m, x: x.inner(x), "matmul"),
    "inner of a vector": (lambda m, x: torch.inner(x, x[0, 0]), "matmul"),
    "inner of vectors is none": (lambda m, x: torch.inner(x[0, 0], x[0, 1]), ""),
    "tensordot": (lambda m, x: torch.tensordot(x, m.w, dims=([2], [1])), "linear"),
    "tensordot of two axes": (lambda m, x: torch.tensordot(x[0], x, dims=[(0, 1), (1, -1)]), "matmul"),
    "tensordot by a number": (lambda m, x: torch.tensordot(x[0], x[0].T, 1), "matmul"),
    "tensordot of nothing": (lambda m, x: torch.tensordot(x, x, 0), ""),
    "multi_dot": (lambda m, x: torch.linalg.multi_dot([x[0, 0], m.w.T, seeded(4, 4)[:, 0]]), "linear"),
    "einsum with dots": (lambda m, x: torch.einsum("...c,dc->...d", x, m.w), "linear"),
    "einsum without an arrow": (lambda m, x: torch.einsum("btc,dc", x, m.w), "linear"),
    "einsum of a list": (lambda m, x: torch.einsum("btc,dc->dbt", [x, m.w]), "linear"),
    "einsum by sublists": (lambda m, x: torch.einsum(x, [0, 1, 2], m.w, [3, 2], [0, 1, 3]), "linear"),
    "einsum of a diagonal is none": (lambda m, x: torch.einsum("bii,dc->bd", x[:, :3], m.w), ""),
    "cdist": (lambda m, x: torch.cdist(x, m.w), "linear"),
    "cdist of a batch": (lambda m, x: torch.cdist(x[0], m.w[None].expand(2, 4, 3)), "matmul"),
    "cdist to one table": (
        lambda m, x: torch.cdist(x[0], m.w[None], p=2, compute_mode="use_mm_for_euclid_dist"),
        "linear",
    ),
    "cdist of activations": (lambda m, x: torch.cdist(x, x + 1), "matmul"),
    "cdist of another norm": (lambda m, x: torch.cdist(x, m.w[None], p=1), ""),
    "cdist without products": (lambda m, x: torch.cdist(x, m.w, compute_mode="donot_use_mm_for_euclid_dist"), ""),
    "linear of two activations": (lambda m, x: F.linear(x, x[0], x[0, :, 0]), "matmul"),
    "baddbmm": (lambda m, x: torch.baddbmm(x @ x.mT, x, x.mT, beta=0.5), "matmul"),
    "baddbmm of no input": (lambda m, x: torch.baddbmm(x @ x.mT / 0.0, x, x.mT, beta=0), "matmul"),
    "einsum of activations": (lambda m, x: torch.einsum("bqd, bkd -> bkq", x, x + 1), "matmul"),
    "einsum that sums alone": (lambda m, x: torch.einsum("btc,dc->bt", x, m.w), "matmul"),
    "einsum that sums nothing": (lambda m, x: torch.einsum("btc,d->btcd", x, m.b), ""),
    "out=": (lambda m, x: torch.matmul(x, m.w.T.clone(), out=torch.empty(0)), ""),
    "integers": (lambda m, x: x.long() @ m.w.long().T, ""),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_seen_once_and_computes_the_same(spelling: str) -> None:
    function, op = SPELLINGS[spelling]
    module = Lambda(function, w=seeded(4, 3), b=seeded(4))
    x = seeded(1, 5, 3)
    calls, out = record(module, x)
    assert [call.op for call in calls][-1:] == ([op] if op else [])
    with torch.inference_mode():
        torch.testing.assert_close(out, module(x), equal_nan=True)
    if op == "linear":
        (call,) = calls
        assert call.site == "#w"
        assert call.weight.shape == (4, 3)
        torch.testing.assert_close(call.weight, module.w.detach())
        assert not call.is_product
        assert call.x.ndim >= 2
    for index, call in enumerate(calls):
        assert call.index == index
        assert call.is_product == (call.op == "matmul")


CONVOLUTIONS = [
    (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 17)),
    (nn.Conv1d(4, 6, 4, padding="same", dilation=3), (1, 4, 17)),
    (nn.Conv1d(4, 6, 4, padding="valid"), (1, 4, 17)),
    (nn.Conv1d(4, 6, 3, padding=1, padding_mode="reflect"), (1, 4, 17)),
    (nn.Conv1d(4, 6, 3), (4, 17)),
    (nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0), groups=2), (1, 2, 9, 8)),
    (nn.Conv2d(2, 4, (3, 2), padding="same"), (1, 2, 9, 8)),
    (nn.ConvTranspose1d(4, 6, 5, stride=3, padding=1, output_padding=2, groups=2, dilation=2), (2, 4, 7)),
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS)
def test_convolutions_come_in_one_layout(layer: nn.Module, shape: tuple[int, ...]) -> None:
    module = nn.Sequential(layer).eval()
    x = seeded(*shape)
    (call,), out = record(module, x)
    assert call.site == "0"
    assert call.x.ndim == call.weight.ndim
    assert call.options is not None
    assert all(isinstance(pad, int) for pad in call.options.padding)
    assert len(call.options.stride) == call.weight.ndim - 2
    with torch.inference_mode():
        torch.testing.assert_close(out, module(x))
        bare = call.compute(with_bias=False) + call.bias.reshape(-1, *[1] * (call.x.ndim - 2))
        torch.testing.assert_close(bare, call.compute())
        torch.testing.assert_close(call.compute(x=2 * call.x), call.compute(weight=2 * call.weight))


MASKS: dict[str, dict[str, object]] = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.25},
    "bool mask": {"attn_mask": seeded(5, 7) > 0},
    "nothing left": {"attn_mask": (torch.arange(5) > 2)[:, None].expand(5, 7)},
    "float mask": {"attn_mask": seeded(2, 1, 5, 7)},
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_attention_is_two_products_and_says_the_same(mask: str, dtype: torch.dtype) -> None:
    keywords = MASKS[mask]
    key, value = seeded(2, 3, 7, 8).to(dtype), seeded(2, 3, 7, 4).to(dtype)
    if isinstance(bias := keywords.get("attn_mask"), Tensor) and bias.is_floating_point():
        keywords = {"attn_mask": bias.to(dtype)}
    module = Lambda(lambda _, q: F.scaled_dot_product_attention(q, key, value, **keywords))
    query = seeded(2, 3, 5, 8).to(dtype)
    calls, out = record(module, query)
    assert [call.site for call in calls] == ["#qk", "#pv"]
    assert all(call.is_product for call in calls)
    assert out.dtype == dtype
    tolerance = {"rtol": 0.02, "atol": 0.02} if dtype == torch.bfloat16 else {}
    torch.testing.assert_close(out, module(query), **tolerance)


def test_grouped_query_attention() -> None:
    key, value = seeded(1, 2, 7, 8), seeded(1, 2, 7, 8)
    module = Lambda(lambda _, q: F.scaled_dot_product_attention(q, key, value, enable_gqa=True))
    query = seeded(1, 6, 5, 8)
    calls, out = record(module, query)
    assert calls[0].weight.shape == (1, 6, 8, 7)
    torch.testing.assert_close(out, module(query))


@pytest.mark.parametrize("need_weights", [True, False])
def test_multihead_attention_takes_no_fused_path(need_weights: bool) -> None:
    class Self(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.attention(x, x, x, need_weights=need_weights)[0]
            return out

    module, x = Self().eval(), seeded(1, 5, 8)
    calls, out = record(module, x)
    products = ["attention#matmul0", "attention#matmul1"] if need_weights else ["attention#qk", "attention#pv"]
    assert [call.site for call in calls] == ["attention", *products, "attention.out_proj"]
    with torch.inference_mode():
        torch.testing.assert_close(out, module(x))


def test_attention_to_another_sequence_names_slices_and_several_matrices() -> None:
    x, memory = seeded(1, 5, 8), seeded(1, 7, 8)
    packed = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    calls, _ = record(packed, x, memory, memory)
    assert [call.site for call in calls][:2] == ["#linear0", "#linear1"]
    apart = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)}).eval()
    sites: list[str] = []

    def handler(call: SiteCall) -> Tensor:
        sites.append(call.site)
        return call.compute()

    with torch.no_grad(), intercept(apart, handler):
        apart["a"](x, memory[..., :6], memory[..., :6])
    assert sites[:3] == ["a#q_proj_weight", "a#k_proj_weight", "a#v_proj_weight"]


def test_encoder_layer_keeps_its_answer() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True).eval()
    x, padding = seeded(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    calls: list[SiteCall] = []
    with torch.inference_mode():
        with intercept(layer, lambda call: (calls.append(call), call.compute())[1]):
            out = layer(x, src_key_padding_mask=padding)
        torch.testing.assert_close(out[~padding], layer(x, src_key_padding_mask=padding)[~padding])
    names = ["self_attn", "self_attn#qk", "self_attn#pv", "self_attn.out_proj", "linear1", "linear2"]
    assert [call.site for call in calls] == names


def test_names_start_again_with_each_forward_and_shared_weights_are_one_site() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(6, 4)
            self.mix = Lambda(lambda _, x: (x @ x.mT) @ x)
            self.layer = nn.Linear(4, 4)
            self.again = nn.Linear(4, 4)
            self.again.weight = self.layer.weight
            self.head = nn.Linear(4, 6, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.layer(self.mix(self.mix(self.embedding(tokens))))
            out: Tensor = self.head(self.again(x))
            return out

    calls, _ = record(Tied(), torch.tensor([[1, 2, 3]]))
    products = ["mix#matmul0", "mix#matmul1"]
    assert [call.site for call in calls] == [*products, *products, "layer", "layer", "head"]


def test_a_model_without_memory_has_the_same_names() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(3, 4), nn.Conv1d(5, 6, 1))
        x = torch.empty(2, 5, 3)
    calls: list[SiteCall] = []

    def handler(call: SiteCall) -> Tensor:
        calls.append(call)
        return call.compute()

    with intercept(module, handler):
        out = x[0] @ module[0].weight.T
        module[1](x)
    assert [call.site for call in calls] == ["0", "1"]
    assert out.is_meta


@pytest.mark.parametrize("parametrized", [True, False])
def test_a_weight_under_weight_norm_belongs_to_its_layer(parametrized: bool) -> None:
    if parametrized:
        norm = nn.utils.parametrizations.weight_norm
    else:
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(nn.Linear(2, 2))

        def norm(layer: nn.Module) -> nn.Module:
            with pytest.warns(FutureWarning):
                return nn.utils.weight_norm(layer)

    module = nn.Sequential(norm(nn.Conv1d(3, 4, 3)), nn.Flatten(), norm(nn.Linear(4 * 6, 2)))
    calls, _ = record(module, seeded(1, 3, 8))
    assert [(call.site, call.op, call.is_product) for call in calls] == [("0", "conv1d", False), ("2", "linear", False)]


def test_methods_outside_forward_are_seen_by_their_weights_only() -> None:
    module = Lambda(lambda m, x: x, w=seeded(4, 3))
    calls: list[SiteCall] = []
    with intercept(module, lambda call: (calls.append(call), call.compute())[1]) as interception:
        assert interception.path is None
        x = seeded(5, 3) @ module.w.T
        x @ x.T
        F.linear(x, x)
        F.conv1d(seeded(1, 2, 5), seeded(2, 2, 3))
    assert [call.site for call in calls] == ["#w"]


def hooks_of(module: nn.Module) -> list[int]:
    return [
        len(getattr(child, name))
        for child in module.modules()
        for name in (
            "_forward_hooks",
            "_forward_pre_hooks",
            "_forward_hooks_always_called",
            "_forward_hooks_with_kwargs",
        )
    ]


def test_nothing_is_left_behind_and_a_failure_does_not_shift_names() -> None:
    module = nn.Sequential(nn.Linear(3, 3), Lambda(lambda _, x: x @ x.mT))
    before = hooks_of(module)
    names: list[str] = []

    def handler(call: SiteCall) -> Tensor:
        names.append(call.site)
        if len(names) == 2:
            raise KeyError("stop")
        return call.compute()

    with intercept(module, handler):
        with pytest.raises(KeyError):
            module(seeded(2, 3))
        module(seeded(2, 3))
    assert names == ["0", "1#matmul0", "0", "1#matmul0"]
    assert hooks_of(module) == before
    with pytest.raises(KeyError), intercept(module, lambda call: [][0] if call is None else {}[0]):
        module(seeded(2, 3))
    assert hooks_of(module) == before
    module(seeded(2, 3))
    assert len(names) == 4
    gc.collect()


def test_the_handler_is_not_intercepted_and_the_innermost_takes_the_call() -> None:
    module = nn.Sequential(nn.Linear(3, 3))
    outer: list[str] = []
    inner: list[str] = []
    kept: list[SiteCall] = []

    def outside(call: SiteCall) -> Tensor:
        outer.append(call.site)
        return call.compute()

    def inside(call: SiteCall) -> Tensor:
        inner.append(call.site)
        kept.append(call)
        return F.linear(call.x, call.weight) @ torch.eye(3)

    with intercept(module, outside), intercept(module, inside):
        module(seeded(2, 3))
        kept[0].compute()
    assert (outer, inner) == ([], ["0"])


def test_what_the_handler_returns_is_what_the_model_goes_on_with() -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU())
    with intercept(module, lambda call: torch.full_like(call.compute(), 7.0)):
        assert module(seeded(2, 3)).tolist() == [[7.0] * 3] * 2


def test_gradients_go_through() -> None:
    module, x = nn.Sequential(nn.Linear(3, 2)), seeded(4, 3)
    with intercept(module, lambda call: call.compute()):
        module(x).sum().backward()
    torch.testing.assert_close(module[0].weight.grad, x.sum(0).expand(2, 3))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_einsum_of_activations_is_what_torch_has(data: st.DataObject) -> None:
    letters = st.lists(st.sampled_from("abcde"), min_size=1, max_size=4, unique=True).map("".join)
    terms = data.draw(st.lists(letters, min_size=2, max_size=4))
    result = "".join(data.draw(st.lists(st.sampled_from(sorted(set("".join(terms)))), unique=True)))
    sizes = dict(zip("abcde", (2, 3, 4, 5, 1), strict=True))
    operands = [seeded(*(sizes[index] for index in term)).double() for term in terms]
    if data.draw(st.booleans()):  # dots for some first axes
        terms, result = [f"...{term}" for term in terms], f"...{result}"
        operands = [operand[None].expand(3, *operand.shape) for operand in operands[:-1]] + operands[-1:]
    equation = ",".join(terms) + (f"->{result}" if data.draw(st.booleans()) else "")
    module = Lambda(lambda _, x: torch.einsum(equation, x, *operands[1:]))
    calls, out = record(module, operands[0])
    assert len(calls) < len(terms)
    torch.testing.assert_close(out, torch.einsum(equation, *operands))


def test_einsum_of_three_names_both_weights() -> None:
    module = Lambda(lambda m, x: torch.einsum("btc,dc,ed->bte", x, m.down, m.up), down=seeded(2, 8), up=seeded(8, 2))
    calls, _ = record(module, seeded(1, 5, 8))
    assert [(call.site, call.op) for call in calls] == [("#down", "linear"), ("#up", "linear")]


def test_bilinear_is_a_layer() -> None:
    module = nn.ModuleDict({"pair": nn.Bilinear(3, 4, 5)})
    left, right = seeded(2, 6, 3), seeded(2, 6, 4)
    calls: list[SiteCall] = []
    with torch.no_grad():
        wanted = module["pair"](left, right)
        with intercept(module, lambda call: (calls.append(call), call.compute())[1]):
            torch.testing.assert_close(module["pair"](left, right), wanted)
            torch.testing.assert_close(module["pair"](left[0, 0], right[0, 0]), wanted[0, 0])
    assert [(call.site, call.op, tuple(call.weight.shape)) for call in calls] == [("pair", "linear", (15, 4))] * 2


class Codebook(nn.Module):
    """As Mimi's: kept as sums and counts, made a table when first asked for."""

    def __init__(self, cached: bool) -> None:
        super().__init__()
        self.register_buffer("embed_sum", 3 * seeded(7, 4))
        self.register_buffer("usage", torch.full((7,), 3.0))
        self.cached = cached
        self._table: Tensor | None = None

    def table(self) -> Tensor:
        table = self.embed_sum / self.usage[:, None]
        if self.cached:
            self._table = table if self._table is None else self._table
        return table if self._table is None else self._table

    def encode(self, x: Tensor) -> Tensor:
        return torch.cdist(x[None], self.table()[None], p=2)[0].argmin(-1)

    def forward(self, x: Tensor) -> Tensor:
        return self.encode(x)


@pytest.mark.parametrize("inside", [True, False])
def test_a_codebook_made_from_buffers_is_the_weight_of_its_module(inside: bool) -> None:
    module = nn.ModuleDict({"codebook": Codebook(cached=not inside)})
    x = seeded(30, 4)
    wanted = torch.cdist(x, seeded(7, 4)).argmin(-1)
    calls: list[SiteCall] = []
    for _ in range(2):
        with torch.inference_mode(), intercept(module, lambda call: (calls.append(call), call.compute())[1]):
            found = module["codebook"](x) if inside else module["codebook"].encode(x)
        assert torch.equal(found, wanted)
    assert [(call.site, call.op, call.is_product) for call in calls] == [("codebook", "linear", False)] * 2


def test_distances_have_gradients_where_they_are_zero() -> None:
    module = Lambda(lambda m, x: torch.cdist(x, m.w), w=seeded(4, 3))
    x = torch.cat([seeded(2, 3), module.w.detach()]).requires_grad_()
    with intercept(module, SiteCall.compute):
        out = module(x)
    torch.testing.assert_close(
        out, torch.cdist(x, module.w, compute_mode="donot_use_mm_for_euclid_dist"), atol=2e-3, rtol=1e-5
    )
    out.sum().backward()
    assert torch.isfinite(x.grad).all()


def test_one_module_under_two_names_is_one_site() -> None:
    layer = nn.Linear(3, 3)
    module = nn.Sequential(layer, nn.Sequential(layer))
    calls, _ = record(module, seeded(2, 3))
    assert [call.site for call in calls] == ["0", "0"]


def test_a_buffer_shared_by_two_modules_is_one_site() -> None:
    table = seeded(5, 3)
    parts = [Lambda(lambda m, x: x @ m.table.T @ m.table) for _ in range(2)]
    for part in parts:
        part.register_buffer("table", table)
    calls, _ = record(nn.Sequential(*parts), seeded(2, 3))
    assert [call.site for call in calls] == ["0", "0#use1"] * 2


def test_parts_of_a_fused_weight_are_sites_of_their_own_and_the_same_at_every_run() -> None:
    def attend(m: nn.Module, x: Tensor) -> Tensor:
        query, key, value = (F.linear(x, part) for part in m.packed.chunk(3))
        return query @ key.mT @ value

    module = nn.Sequential(Lambda(attend, packed=seeded(12, 4)))
    for _ in range(2):
        calls, _ = record(module, seeded(1, 5, 4))
        names = ["0#linear0", "0#linear1", "0#linear2", "0#matmul0", "0#matmul1"]
        assert [call.site for call in calls] == names
    assert [call.is_product for call in calls] == [False] * 3 + [True] * 2
