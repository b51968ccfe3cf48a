"""TorchVoice: any torch module as a voice, by examples of what it is called with and by where its sound stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from voice.family import Family
from voice.folding import fold_parametrizations
from voice.model import Clip, Rendering
from voice.noise import paired_noise

SOUND = "sound"
"""The output that is the waveform; every other is a head's logits."""

Example = Tensor | Sequence[Tensor] | Mapping[str, Tensor] | Clip
"""What a module is called with: one argument, several by place, or by name; or a clip, whose inputs go by place."""


class TorchModuleError(ValueError):
    """A module that cannot be used as it was described, and what to change."""


@dataclass(frozen=True)
class TorchVoice:
    """A torch module in eval mode, fp32, whose weights are folded; `TorchVoice.of` makes it and its clips.

    What the module draws with torch's generators is the same at each render, by a seed that is a clip's last input.
    """

    name: str
    module: nn.Module
    family: Family
    sample_rate_hz: int
    outputs: Mapping[str, str] = MappingProxyType({})
    """Output (`sound`, or a head as `Rendering.logits` names it) -> where it stands in what the module gives: keys,
    attributes and indices with points between them. Empty: all that the module gives is the sound."""
    keywords: tuple[str, ...] = ()
    """Names of the arguments that a clip's inputs are; empty where they go by place."""
    draws: bool = False
    """Whether the module draws noise; each clip then ends with its seed."""
    protected: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        module: nn.Module,
        examples: Sequence[Example],
        *,
        name: str,
        family: Family,
        sample_rate_hz: int,
        outputs: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple["TorchVoice", tuple[Clip, ...]]:
        """Make a voice of a module, which is changed in place, and clips of examples; each is rendered once.

        Args:
            module: any.
            examples: at least one; a clip's `seconds` are taken as they are, of others the sound tells how long it is.
            name: for reports.
            family: how it is compared.
            sample_rate_hz: of the sound that it makes, or listens to.
            outputs: where what is judged stands in what it gives.

        Raises:
            TorchModuleError: an example is no tensors, or not named like the others; an output is not there or has
                another shape; or nothing tells how long a clip is.
        """
        keywords = _keywords(examples)
        fold_parametrizations(module.eval())
        module = module.requires_grad_(False).cpu().float()
        voice = cls(name, module, family, sample_rate_hz, outputs, keywords)
        clips, draws = [], False
        for index, example in enumerate(examples):
            clip = example if isinstance(example, Clip) else Clip(f"clip{index}", _inputs(index, example), 0.0)
            with torch.inference_mode(), paired_noise(index) as noise:
                made = voice._made(clip.inputs)
            draws = draws or noise.places > 0
            if not isinstance(example, Clip):
                if made.waveform is None:
                    raise TorchModuleError(
                        f"inputs: nothing says how many seconds clip {index} lasts, as the module makes no sound; give"
                        " voice.model.Clip(name, inputs, seconds) in its place"
                    )
                clip = replace(clip, seconds=len(made.waveform) / sample_rate_hz)
            clips.append(clip)
        if draws:
            clips = [replace(clip, inputs=(*clip.inputs, torch.tensor(i))) for i, clip in enumerate(clips)]
        return replace(voice, draws=draws), tuple(clips)

    def unforced(self, clip: Clip) -> Clip | None:
        """None: what of the inputs forces something, only the module knows."""
        return None

    def reseeded(self, clip: Clip, seed: int) -> Clip | None:
        """The clip with other noise; None where the module draws none."""
        return replace(clip, inputs=(*clip.inputs[:-1], torch.tensor(seed))) if self.draws else None

    def render(self, clip: Clip) -> Rendering:
        """What the module gives for the clip, under inference_mode, with the clip's noise."""
        with torch.inference_mode():
            if not self.draws:
                return self._made(clip.inputs)
            with paired_noise(int(clip.inputs[-1])):
                return self._made(clip.inputs[:-1])

    def _made(self, inputs: Sequence[Tensor]) -> Rendering:
        # A module may write to what it is given.
        given = [tensor.clone() for tensor in inputs]
        named = dict(zip(self.keywords, given, strict=True)) if self.keywords else {}
        found = self.module(**named) if named else self.module(*given)
        if not self.outputs:
            if not isinstance(found, Tensor):
                raise TorchModuleError(
                    f"outputs: the module gives {_told(found)}; say which part is sound or logits, as outputs: {{sound:"
                    " 0, text: hidden.logits}"
                )
            return Rendering(_waveform(found, "outputs"))
        sound = self.outputs.get(SOUND)
        return Rendering(
            None if sound is None else _waveform(_part(found, SOUND, sound), f"outputs.{SOUND}"),
            {head: _logits(_part(found, head, at), head) for head, at in self.outputs.items() if head != SOUND},
        )


def _keywords(examples: Sequence[Example]) -> tuple[str, ...]:
    if not examples:
        raise TorchModuleError("inputs: there are no clips; give at least one")
    names = [tuple(example) if isinstance(example, Mapping) else () for example in examples]
    for index, other in enumerate(names):
        if set(other) != set(names[0]):
            raise TorchModuleError(
                f"inputs: clip {index} names {', '.join(other) or 'nothing'}, and clip 0"
                f" {', '.join(names[0]) or 'nothing'}; all clips must name the same arguments"
            )
    return tuple(sorted(names[0]))


def _inputs(index: int, example: Any) -> tuple[Tensor, ...]:
    if isinstance(example, Mapping):
        named = {str(name): example[name] for name in sorted(example)}
    else:
        several = example if isinstance(example, tuple | list) else (example,)
        named = {str(place): tensor for place, tensor in enumerate(several)}
    strange = [f"{name} is {_told(value)}" for name, value in named.items() if not isinstance(value, Tensor)]
    if strange:
        raise TorchModuleError(f"inputs: clip {index} must be tensors, by place or by name: {', '.join(strange)}")
    return tuple(named.values())


def _part(found: Any, output: str, at: str) -> Any:
    """What stands at a place like `hidden.logits` or `audio.0`."""
    part = found
    for step in at.split("."):
        number = int(step) if step.lstrip("-").isdecimal() else None
        if isinstance(part, Mapping):
            keys = [key for key in (step, number) if key in part]
        else:
            in_reach = isinstance(part, tuple | list) and number is not None and -len(part) <= number < len(part)
            keys = [number] if in_reach else []
        if keys:
            part = part[keys[0]]
        elif number is None and hasattr(part, step):
            part = getattr(part, step)
        else:
            raise TorchModuleError(f"outputs.{output}: {step} of {at} is not in {_told(part)}")
    return part


def _waveform(made: Any, what: str) -> Tensor:
    """Sound as [time] float32, of [time], [1, time] or [1, 1, time]."""
    if not isinstance(made, Tensor) or not made.is_floating_point() or made.ndim not in (1, 2, 3):
        raise TorchModuleError(f"{what}: gives {_told(made)}, and sound must be floating point [time], of one channel")
    if any(size != 1 for size in made.shape[:-1]):
        raise TorchModuleError(
            f"{what}: gives {_told(made)}, and sound must be [time], [1, time] or [1, 1, time]: one clip of one channel"
        )
    return made.reshape(-1).float()


def _logits(made: Any, head: str) -> Tensor:
    """Logits as [steps, vocabulary] float32, of that or [1, steps, vocabulary]."""
    good = isinstance(made, Tensor) and made.is_floating_point() and made.ndim in (2, 3)
    if not good or (made.ndim == 3 and made.shape[0] != 1):
        raise TorchModuleError(
            f"outputs.{head}: gives {_told(made)}, and logits must be floating point [steps, vocabulary] or"
            " [1, steps, vocabulary]"
        )
    logits: Tensor = made.reshape(made.shape[-2:]).float()
    return logits


def _told(value: object) -> str:
    """Name what was got, in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} with the keys {', '.join(map(str, value))}"
    if isinstance(value, tuple | list) and type(value) in (tuple, list):
        return f"a {type(value).__name__} of {len(value)}"
    fields = getattr(value, "_fields", None) or getattr(value, "__dataclass_fields__", None)
    return f"a {type(value).__name__}" + (f" with {', '.join(fields)}" if fields else "")
