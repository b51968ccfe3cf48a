"""Folding: weights that a module computes on the way, made parameters of their own."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def fold_parametrizations(module: nn.Module) -> tuple[str, ...]:
    """Replace every parametrized weight in a module by the parameter that it comes to; in place.

    Folded are parametrizations of torch.nn.utils.parametrize (weight norm, spectral norm, orthogonal and one's own),
    the older weight_norm and spectral_norm, and pruning. The weights are those of eval mode, to the bit; what they were
    computed from is gone. Levers, and training in a target's arithmetic, then see a layer's weight as its own.

    Returns:
        Path of each folded weight, in the order of `named_modules()`.
    """
    folded: list[str] = []
    # Listed first, for folding takes modules away.
    for path, child in list(module.named_modules()):
        names = (*_fold_lists(child), *_fold_hooks(child))
        folded += [f"{path}.{name}" if path else name for name in names]
    return tuple(folded)


def _fold_lists(module: nn.Module) -> list[str]:
    if not parametrize.is_parametrized(module):
        return []
    lists = module.parametrizations
    assert isinstance(lists, nn.ModuleDict)
    names = list(lists)
    for name in names:
        # Spectral norm moves its vectors whenever a weight is asked for in training.
        lists[name].eval()
        trained = any(tensor.requires_grad for tensor in lists[name].parameters(recurse=False))
        with torch.inference_mode(False), torch.no_grad():
            weight: Tensor = getattr(module, name).detach().clone(memory_format=torch.preserve_format)
            # An original that stands alone may be tied to another layer, and is left as it is.
            several = not lists[name].is_tensor
            parametrize.remove_parametrizations(module, name, leave_parametrized=several)
        _set(module, name, weight, trained=trained)
    # Weight norm leaves a hook that reads states of the older kind, a local function, which no pickle takes.
    for key, hook in list(module._load_state_dict_pre_hooks.items()):
        if getattr(getattr(hook, "hook", hook), "__qualname__", "").startswith("weight_norm.<locals>"):
            del module._load_state_dict_pre_hooks[key]
    return names


def _fold_hooks(module: nn.Module) -> list[str]:
    names: list[str] = []
    for hook in list(module._forward_pre_hooks.values()):
        with torch.inference_mode(False):
            if isinstance(hook, WeightNorm):
                names.append(hook.name)
                trained = bool(getattr(module, f"{hook.name}_v").requires_grad)
                remove_weight_norm(module, hook.name)
            elif isinstance(hook, SpectralNorm):
                names.append(hook.name)
                trained = bool(getattr(module, f"{hook.name}_orig").requires_grad)
                remove_spectral_norm(module, hook.name)
            elif isinstance(hook, prune.BasePruningMethod):
                names.append(hook._tensor_name)
                trained = bool(getattr(module, f"{names[-1]}_orig").requires_grad)
                prune.remove(module, names[-1])  # type: ignore[no-untyped-call]
            else:
                continue
        _set(module, names[-1], getattr(module, names[-1]).detach(), trained=trained)
    return names


def _set(module: nn.Module, name: str, weight: Tensor, *, trained: bool) -> None:
    delattr(module, name)
    # By assignment, which recurrent layers keep a list by.
    setattr(module, name, nn.Parameter(weight, requires_grad=trained))
