"""ModelSection: which voice model is under search, as a recipe names it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, TypeAlias

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Strict, Tag, WithJsonSchema

from precision.family import Family
from precision.section_values import FORBID, Count, Text


def _inputs_form(inputs: object) -> str | None:
    if isinstance(inputs, Mapping):
        return "<shapes>"
    return "<function>" if isinstance(inputs, str) else None


Inputs: TypeAlias = Annotated[
    Annotated[Text, Tag("<function>")]
    | Annotated[dict[Text, Annotated[tuple[Count, ...], Field(min_length=1)]], Field(min_length=1), Tag("<shapes>")],
    Discriminator(
        _inputs_form,
        custom_error_type="inputs_form",
        custom_error_message="Must be a function that gives clips, as my_package.my_model:clips, or a mapping of names"
        " to shapes",
    ),
]
"""What a torch module is run on: a function that gives clips, or shapes of noise."""
Part = Annotated[
    Text,
    BeforeValidator(lambda part: str(part) if type(part) is int else part),
    WithJsonSchema({"type": ["string", "integer"]}),
]
"""Where in what a module gives something stands: keys, attributes and indices with points between them."""


@dataclass(frozen=True, slots=True)
class ModelSection:
    """The voice model under search: exactly one of name, hf and entrypoint."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    name: Annotated[Text | None, Field(title="Model")] = None
    """Name of a model that the package brings, such as embedded or hifigan."""
    checkpoint: Annotated[Text | None, Field(title="Checkpoint")] = None
    """Path of the weights, where a model with a name does not carry its own."""
    config: Annotated[Text | None, Field(title="Configuration")] = None
    """Path of the model's own configuration, where one with a name needs it."""
    hf: Annotated[Text | None, Field(title="Hugging Face")] = None
    """A model of Hugging Face: a repository, as kyutai/mimi, or a folder that save_pretrained wrote."""
    revision: Annotated[Text | None, Field(title="Revision")] = None
    """Branch, tag or commit of the repository."""
    trust_remote_code: Annotated[bool, Strict(), Field(title="Trust remote code")] = False
    """Whether Python that lies beside the weights in the repository is run."""
    entrypoint: Annotated[Text | None, Field(title="Entry point")] = None
    """Function of one's own that builds the model, as my_package.my_model:build; it gives a torch module or a Voice."""
    inputs: Annotated[Inputs | None, Field(title="Inputs")] = field(default=None, hash=False)
    """What the torch module is run on: a function that gives clips, as my_package.my_model:clips; or names of arguments
    to shapes, which are filled with seeded noise, for a first look."""
    outputs: Annotated[dict[Text, Part] | None, Field(title="Outputs", min_length=1)] = field(default=None, hash=False)
    """Where in what the module gives the sound and the logits stand: sound, text, audio.0 and so on, each with its
    index, key or attribute; left out: the module's own `outputs`, or else all that it gives is the sound."""
    sample_rate_hz: Annotated[Count | None, Field(title="Sample rate")] = None
    """Rate of the audio that the module makes or listens to; left out: the module's own `sample_rate_hz`."""
    family: Annotated[Family | None, Field(title="Family")] = None
    """What kind of model the module is, which says how it is compared; left out: the module's own `family`."""
