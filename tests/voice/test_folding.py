"""Folded weights: the same model, and its weights are its own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from backends.emulation.adaptation import is_own_weight
from voice.folding import fold_parametrizations
from voice.intercept import intercept
from voice.site_call import SiteCall

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")


class Symmetric(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.triu() + x.triu(1).mT


def own(layer: nn.Module) -> nn.Module:
    nn.utils.parametrize.register_parametrization(layer, "weight", Symmetric())
    return layer


def several(layer: nn.Module) -> nn.Module:
    return parametrizations.weight_norm(own(layer), "bias", dim=None)


KINDS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight norm": parametrizations.weight_norm,
    "old weight norm": nn.utils.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "old spectral norm": nn.utils.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "one's own": own,
    "two of one layer": several,
    "two on one weight": lambda layer: own(parametrizations.weight_norm(layer)),
    "pruned": lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("kind", KINDS)
def test_the_folded_model_is_the_same_to_the_bit(kind: str, mode: Callable[[], torch.no_grad]) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(KINDS[kind](nn.Linear(6, 6)), nn.GELU(), nn.ModuleDict({"inner": nn.Linear(6, 3)})["inner"])
    module.get_submodule("0").bias.data.normal_()
    for tensor in module.parameters():
        tensor.data.add_(0.1 * torch.randn(tensor.shape))  # as training moves what a weight is computed from
    module.eval()
    x = torch.randn(4, 6)
    with mode():
        wanted = module(x)
        folded = fold_parametrizations(module)
        assert torch.equal(module(x), wanted)
        assert fold_parametrizations(module) == ()
    assert folded == (("0.weight", "0.bias") if kind == "two of one layer" else ("0.weight",))
    assert type(module[0]) is nn.Linear
    assert set(module.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in module.parameters())
    assert not module[0]._forward_pre_hooks
    owns: list[bool] = []
    with torch.no_grad(), intercept(module, lambda call: (owns.append(is_own_weight(module, call)), call.compute())[1]):
        module(x)
    assert owns == [True, True]


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, nn.utils.weight_norm])
def test_recurrent_layers_and_convolutions(norm: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    lstm = norm(norm(nn.LSTM(4, 5), "weight_hh_l0"), "weight_ih_l0")
    module = nn.ModuleList([lstm, norm(nn.ConvTranspose1d(4, 3, 4, stride=2), dim=1)]).eval()
    for tensor in module.parameters():
        tensor.data.mul_(1.5)
    x = torch.randn(7, 1, 4)
    with torch.no_grad():
        wanted = module[0](x)[0], module[1](x.permute(1, 2, 0))
        assert set(fold_parametrizations(module)) == {"0.weight_hh_l0", "0.weight_ih_l0", "1.weight"}
        assert torch.equal(module[0](x)[0], wanted[0])
        assert torch.equal(module[1](x.permute(1, 2, 0)), wanted[1])
        sites: list[str] = []
        with intercept(module, lambda call: (sites.append(call.site), call.compute())[1]):
            torch.testing.assert_close(module[0](x)[0], wanted[0])
    assert set(sites) == {"0#weight_ih_l0", "0#weight_hh_l0"}


def test_frozen_weights_stay_frozen_and_training_mode_folds_what_eval_computes() -> None:
    module = parametrizations.spectral_norm(nn.Linear(4, 4))
    module.requires_grad_(False)
    module.eval()
    wanted = module.weight.clone()
    module.train()
    assert fold_parametrizations(module) == ("weight",)
    assert torch.equal(module.weight, wanted)
    assert module.training
    assert not module.weight.requires_grad


def test_products_that_make_weights_are_no_sites() -> None:
    module = nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4))).eval()
    sites: list[str] = []
    with torch.inference_mode(), intercept(module, lambda call: (sites.append(call.site), SiteCall.compute(call))[1]):
        module(torch.ones(2, 4))
    assert sites == ["0"]
