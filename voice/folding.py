"""fold: weights that are computed from others at each call (weight norm, spectral norm, pruning), computed once."""

from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def fold(module: nn.Module) -> nn.Module:
    """Replace each parametrized tensor by its value, in place, and give the module.

    A computed weight is a new tensor at each call, which no site could be told by, nor any scheme prepared for. Folded
    are torch's parametrizations of every kind, and weight norm, spectral norm and pruning of the older kind, by hooks.
    The module computes as it did in eval mode.
    """
    module.eval()  # a spectral norm in training goes on with its iteration
    for part in list(module.modules()):
        if parametrize.is_parametrized(part):
            names = list(part.parametrizations)  # type: ignore[arg-type]
            for name in names:
                parametrize.remove_parametrizations(part, name, leave_parametrized=True)
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(part, hook.name)
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(part, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                prune.remove(part, hook._tensor_name)  # type: ignore[no-untyped-call]
    return module
