"""DecodingSection: what a model that writes row after row is priced at, as a recipe has it."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field

from precision.section_values import FORBID, Count, Number


@dataclass(frozen=True, slots=True)
class DraftSection:
    """A smaller decoder of the same rows that drafts them, for speculative decoding."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    layers: Annotated[Count, Field(title="Layers")]
    """Number of its transformer layers, at most those of the large one."""
    width: Annotated[Count, Field(title="Width")]
    """Its d_model; heads are as large as those of the large one, the hidden width is in proportion."""
    acceptance: Annotated[Number, Field(title="Acceptance", ge=0, le=1)]
    """Share of drafted rows that the large one accepts, all tokens of a row together."""
    drafted: Annotated[Count, Field(title="Rows drafted")]
    """Rows that are drafted before each pass of the large one."""


@dataclass(frozen=True, slots=True)
class DecodingSection:
    """What is assumed of the streams of a decoder where it is priced; rows are frames of 80 ms."""

    __pydantic_config__: ClassVar[ConfigDict] = FORBID
    context_rows: Annotated[Count, Field(title="Rows of context")] = 1500
    """Rows that a stream holds and looks at, the mean over streams and over time: 1500 are two minutes."""
    prompt_rows: Annotated[Count, Field(title="Rows of a prompt")] = 125
    """Rows that are read before the first sound: 125 are ten seconds."""
    draft: Annotated[DraftSection | None, Field(title="Draft")] = None
    """The decoder that drafts; left out, nothing is drafted."""
