"""What every branch of the tree of settings has in common."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Settings(BaseModel):
    """A branch of the tree: unknown keys are refused, nothing changes after validation."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )


#: A share of a whole.
Share = Annotated[float, Field(ge=0, le=1)]


#: Decay per step of a moving average.
Decay = Annotated[float, Field(ge=0, lt=1)]
