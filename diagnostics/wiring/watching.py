"""Calls of quantizers in an experiment: hooks that read them, also where training calls alone cannot be read."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError
from ..probes import Call, CodebookReading, NotAQuantizerError, WatchedCodebook
from ..probes.base import Tap
from ..recording.hooks import watch
from .evidence import Forward, Rows


class Repeatable(NamedTuple):
    """A call of a quantizer that can be made again, on another copy of the model."""

    tap: Tap
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @classmethod
    def of(cls, call: Call) -> "Repeatable":
        """The same arguments without their graph."""
        return cls(Tap(call.module, call.method), _detached(call.args), _detached(dict(call.kwargs)))


class CallReader:
    """Reads the calls of one codebook.

    What hands over its codes in another way while it trains, so that no table explains its output, is read by what a
    call in evaluation mode explains; ``unreadable`` then says what was wrong.

    Args:
        codebook: Whose calls.
        on_reading: Told of each reading.

    Attributes:
        unreadable: Why training calls cannot be read as they are.
        refused: Why calls are not read at all; from then on they are let pass.
    """

    def __init__(self, codebook: WatchedCodebook, on_reading: Callable[[CodebookReading], None]):
        self.codebook, self._on_reading = codebook, on_reading
        self.unreadable = ""
        self.refused = ""
        self._settling = False

    @torch.no_grad()
    def take(self, tap: int, call: Call) -> None:
        """Take in the return of a tap."""
        if self.refused:
            return
        if self._settling:
            self.codebook.read(tap, call)
            return
        try:
            reading = self._read(tap, call)
        except Exception as error:
            self.refused = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            return
        if reading is not None:
            self._on_reading(reading)

    def _read(self, tap: int, call: Call) -> CodebookReading | None:
        try:
            return self.codebook.read(tap, call)
        except NotAQuantizerError:
            raise
        except InputError as error:
            if self.unreadable or not self.codebook.module.training:
                raise
            self._settle_in_evaluation(call)
            self.unreadable = str(error)
            return self.codebook.read(tap, call)

    def _settle_in_evaluation(self, call: Call) -> None:
        """Make the same call in evaluation mode, on this copy: what comes out of it may be explained."""
        module, modes = call.module, [part.training for part in call.module.modules()]
        self._settling = True
        module.eval()
        try:
            repeat(Repeatable.of(call))
        finally:
            self._settling = False
            for part, mode in zip(module.modules(), modes, strict=True):
                part.training = mode


@contextmanager
def watched(reader: CallReader) -> Iterator[None]:
    """Have the calls of a codebook read."""

    def on_return(number: int) -> Callable[[Call], None]:
        return lambda call: reader.take(number, call)

    handles = [watch(tap, on_return(number)) for number, tap in enumerate(reader.codebook.taps)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def repeat(call: Repeatable) -> Any:
    """What the method returns this time."""
    module, method = call.tap
    return (module if method == "forward" else getattr(module, method))(*call.args, **call.kwargs)


def forward_of(step: int, reading: CodebookReading, before: Tensor | None, after: Tensor | None) -> Forward:
    """A reading as arrays."""
    entering, leaving = reading.entering, reading.leaving
    counted = reading.counted
    indices = reading.indices.where(counted, -1)
    quantized = None if leaving is None else leaving.tokens(leaving.tensor.detach())
    return Forward(
        step=step,
        indices=indices.cpu().numpy(),
        latents=rows_of(reading.latents),
        codes=rows_of(reading.codes),
        quantized=None if quantized is None or quantized.shape != reading.codes.shape else rows_of(quantized),
        before=None if before is None else rows_of(before),
        after=None if after is None else rows_of(after),
        enters=None if entering is None else entering.tensor.requires_grad,
        leaves=None if leaving is None else leaving.tensor.requires_grad,
    )


def rows_of(tensor: Tensor) -> Rows:
    """A copy on the host, in float32."""
    return np.array(tensor.detach().float().cpu().numpy())


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _detached(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_detached(part) for part in value))
    return type(value)(_detached(part) for part in value) if type(value) in (list, tuple) else value
