"""The values that sections of a recipe are made of."""

from typing import Annotated

from pydantic import AllowInfNan, ConfigDict, Field, Strict

FORBID = ConfigDict(extra="forbid", use_attribute_docstrings=True)
"""Of every section: no unknown keys, and what stands under a key describes it."""

Name = Annotated[str, Field(pattern="^[a-z0-9_]+$", max_length=100)]
Text = Annotated[str, Field(min_length=1)]
Whole = Annotated[int, Strict(), Field(le=2**31 - 1)]
Count = Annotated[Whole, Field(ge=1)]
Number = Annotated[float, Strict(), AllowInfNan(False)]
