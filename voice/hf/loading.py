"""load: a Hugging Face model from a repository or a folder, by the adapter of its family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from voice.hf.base import HfError, HfVoice


@dataclass(frozen=True, slots=True)
class Architecture:
    """Which adapter takes a `model_type` of transformers, and the class that loads its weights."""

    adapter: str
    """`module:Class` under voice.hf, a subclass of HfVoice."""
    loads: str
    """Name of a class of transformers, whose `from_pretrained` reads the weights."""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        # One line an architecture, by `model_type`, in the order of docs/voices.md.
    }
)


def load(source: str, *, revision: str | None = None, trust_remote_code: bool = False) -> HfVoice:
    """Load a model in fp32, ready to render.

    Args:
        source: a folder that `save_pretrained` wrote, or the name of a repository, as kyutai/mimi.
        revision: of a repository: a branch, a tag or a commit.
        trust_remote_code: run Python that lies beside the weights; off unless a recipe asks for it.

    Raises:
        HfError: transformers is not installed, the source cannot be read, its architecture has no adapter, or weights
            are missing.
    """
    transformers = _transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise HfError(f"{source}: cannot be read as a model of Hugging Face: {error}") from error
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        known = ", ".join(sorted(ARCHITECTURES))
        raise HfError(
            f"{source}: no adapter for the architecture {config.model_type}; there are adapters for {known}. Any"
            " other model is taken by model.entrypoint: a function that builds it, and one that gives its inputs"
        )
    model, found = getattr(transformers, architecture.loads).from_pretrained(
        source,
        revision=revision,
        trust_remote_code=trust_remote_code,
        dtype="float32",
        attn_implementation="sdpa",
        use_safetensors=True,
        output_loading_info=True,
    )
    missing = sorted(found["missing_keys"])
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise HfError(f"{source}: {len(missing)} weights are missing: {', '.join(missing[:5])}{more}")
    adapter = _named(architecture.adapter)
    return adapter(Path(source).name, model.eval().requires_grad_(False), source)


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise HfError(
            f"models of Hugging Face need transformers; pip install 'precision-search[hf]' ({error})"
        ) from error


def _named(adapter: str) -> Callable[..., HfVoice]:
    module, _, name = adapter.partition(":")
    found: Callable[..., HfVoice] = getattr(import_module(f"voice.hf.{module}"), name)
    return found
