"""Checkpoints: weights from a file, nothing executed, and every mistake named."""

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

NAMED_AT_MOST = 12


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says which, why and what to do."""


def load_state_dict(path: Path | str) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file or a torch checkpoint, to the CPU.

    What the file is, its content decides, not its name. A torch checkpoint is read with `weights_only`, so code in it
    does not run; one that keeps its tensors under a single key (`generator`, `state_dict`) is opened there.

    Raises:
        CheckpointError: where the file is missing, empty, truncated, holds code, or is no checkpoint.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); name an existing checkpoint") from error
    if not head:
        raise CheckpointError(f"{path}: the file is empty; fetch the checkpoint again")
    # A safetensors file is the length of its header in eight bytes, then the header, in JSON.
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return _read_safetensors(path)
    if head.startswith(b"PK") and not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: a torch checkpoint whose end is missing; fetch it again")
    if not head.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"{path}: neither a safetensors file nor a torch checkpoint; name one of these")
    return _tensors_of(_read_torch(path), path)


def load_into(module: nn.Module, state: Mapping[str, Tensor], path: Path | str) -> None:
    """Copy weights into a module, all or none.

    Args:
        module: gets the weights, in its own type.
        state: must have the module's keys and shapes, and finite values.
        path: named in messages.

    Raises:
        CheckpointError: naming missing keys, unknown keys, wrong shapes and non-finite weights, all in one message.
    """
    wanted = module.state_dict()
    shared = [key for key in wanted if key in state]
    mistakes = [
        _listed("missing keys", [key for key in wanted if key not in state]),
        _listed("unknown keys", [key for key in state if key not in wanted]),
        _listed(
            "wrong shapes",
            [
                f"{key} is {tuple(state[key].shape)}, must be {tuple(wanted[key].shape)}"
                for key in shared
                if state[key].shape != wanted[key].shape
            ],
        ),
        _listed("weights with NaN or Inf", [key for key in shared if not bool(torch.isfinite(state[key]).all())]),
    ]
    found = [mistake for mistake in mistakes if mistake]
    if found:
        raise CheckpointError(f"{path}: does not fit {type(module).__name__}: {'; '.join(found)}")
    module.load_state_dict(dict(state))


def content_digest(state: Mapping[str, Tensor]) -> str:
    """Hash of names, types, shapes and values: 16 hexadecimal digits, whatever the order or the file's format."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def layers_digest(module: nn.Module) -> str:
    """Hash of what torch prints of a module, dilations and strides too, which weights do not tell: 16 hex digits."""
    printed = re.sub("0x[0-9a-f]+", "", repr(module))  # where an object lies in memory
    return hashlib.sha256(printed.encode()).hexdigest()[:16]


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path}: a damaged or truncated safetensors file ({error}); fetch it again") from error


def _read_torch(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            # Of a pickle protocol that torch does not write: what comes of it is said below.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path}: a pickle of more than tensors, which could run code; refused. "
                "Convert it to safetensors where you trust it"
            ) from error
        raise CheckpointError(f"{path}: a damaged or truncated torch checkpoint; fetch it again") from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AssertionError) as error:
        raise CheckpointError(f"{path}: a damaged or truncated torch checkpoint; fetch it again") from error


def _tensors_of(content: object, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, must hold named tensors")
    if all(isinstance(value, Tensor) for value in content.values()):
        return {str(key): value for key, value in content.items()}
    nested = [key for key, value in content.items() if _is_state(value)]
    if len(nested) == 1:
        return {str(key): value for key, value in content[nested[0]].items()}
    keys = _listed("its keys", [str(key) for key in content])
    raise CheckpointError(f"{path}: must hold one set of named tensors, found {len(nested)}; {keys}")


def _is_state(value: object) -> bool:
    return isinstance(value, Mapping) and len(value) > 0 and all(isinstance(item, Tensor) for item in value.values())


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return f"{what}: {', '.join(names[:NAMED_AT_MOST])}{more}"
