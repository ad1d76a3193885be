"""A codebook whose reading is put together from several calls."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from .attributes import child_named
from .base import Call, CodebookReading, Live, Tap, WatchedCodebook

Stage = tuple[Tap, Callable[[Call], CodebookReading | None]]


class StagedCodebook(WatchedCodebook):
    """Each tap has a function of its own.

    Args:
        module: The quantizer.
        stages: The taps, each with what its return is shown to.
    """

    def __init__(self, module: nn.Module, stages: list[Stage]):
        self.module = module
        self.taps = ()
        self._stages: list[Callable[[Call], CodebookReading | None]] = []
        self.add_stages(stages)

    def add_stages(self, stages: list[Stage]) -> None:
        """Add taps, which are told of a call after those that stand before them."""
        self.taps += tuple(tap for tap, _ in stages)
        self._stages += [stage for _, stage in stages]

    def read(self, tap: int, call: Call) -> CodebookReading | None:
        return self._stages[tap](call)


class Boundary:
    """Where latents enter the space of the codes and leave it: behind a projection in, before a projection out.

    It holds the tensors of a call until that call has returned.

    Args:
        module: The quantizer, with or without projections.
    """

    def __init__(self, module: nn.Module):
        self._in = child_named(module, "project_in", "in_proj", "proj_in", "input_proj")
        self._out = child_named(module, "project_out", "out_proj", "proj_out", "output_proj")
        self._open = self._in is None
        self._entered: Tensor | None = None
        self._left: Tensor | None = None

    def stages(self) -> list[Stage]:
        """The taps of the projections."""
        ends = ((self._in, self._enter), (self._out, self._leave))
        return [(Tap(projection), stage) for projection, stage in ends if projection is not None]

    def _enter(self, call: Call) -> None:
        self._open, self._entered, self._left = True, call.output, None

    def _leave(self, call: Call) -> None:
        # A quantizer may also project what it decodes from indices; then nothing has entered.
        if self._open:
            self._left = call.first

    @property
    def has_entry(self) -> bool:
        """Whether there is a projection in, so that it is seen when a call begins."""
        return self._in is not None

    @property
    def is_open(self) -> bool:
        """Whether latents have entered and not yet been taken: a call of the quantizer is under way."""
        return self._open

    def take(self) -> tuple[Tensor | None, Tensor | None]:
        """What entered and what left, in the space of the codes, None where it was not seen; and forgets them."""
        taken = self._entered, self._left
        self._open, self._entered, self._left = self._in is None, None, None
        return taken


def live(tensor: Any, tokens: Callable[[Tensor], Tensor]) -> Live | None:
    """The tensor with its way to tokens, None where there is none."""
    return Live(tensor, tokens) if isinstance(tensor, Tensor) else None


def parameters_of(*holders: Tensor | nn.Module | None) -> list[Tensor]:
    """The tensors among these that an optimizer may move, those of a module one by one."""
    found: list[Tensor] = []
    for holder in holders:
        found += holder.parameters() if isinstance(holder, nn.Module) else [] if holder is None else [holder]
    return [tensor for tensor in found if tensor.requires_grad]
