"""How codes are drawn: what the command, a request and an evaluation have in common."""

from typing import Annotated, Any, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError

from ...diagnostics.errors import InputError
from ..config.base import Settings
from ..config.layers import explained

#: What is wrong with a value beyond its bounds.
_BEYOND = {
    "temperature": "is not positive; for the most likely codes choose greedy=True",
    "top_k": "leaves no token: the least is 1",
    "top_p": "is no share of probability: it lies above 0 and is at most 1",
}


class DrawingSettings(Settings):
    """How a code is drawn; see ``draw``."""

    temperature: PositiveFloat = 1.0
    """Divides the logits, before the filters."""
    top_k: PositiveInt | None = None
    """Only the k likeliest codes, and what equals the last of them; null: all."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Only the nucleus, the fewest likeliest codes whose probabilities reach p; comes second; null: all."""
    greedy: bool = False
    """The likeliest code instead of a drawn one."""
    guidance: float = 1.0
    """Scale of classifier-free guidance; 1: none."""

    @classmethod
    def of(cls, **values: Any) -> Self:
        """The settings with these values.

        Raises:
            InputError: A value is of the wrong type or beyond its bounds.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise _told(error, cls) from None


#: From the distribution of the model as it is.
PLAIN = DrawingSettings()


def beyond(name: str, value: float) -> InputError:
    """The error for a value that is beyond the bounds of a field."""
    return InputError(f"{name} {value} {_BEYOND[name]}")


def _told(error: ValidationError, kind: type[Settings]) -> InputError:
    first = error.errors(include_url=False)[0]
    name, value = first["loc"][0], first["input"]
    bounds = first["type"] in ("greater_than", "less_than_equal") or value != value  # the latter is NaN alone
    return beyond(str(name), value) if bounds and name in _BEYOND else explained(error, kind)
