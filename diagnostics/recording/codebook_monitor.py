"""``CodebookMonitor``: the instrument itself."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..probes import Call, WatchedCodebook, find_codebooks
from ..recomputation import recomputing
from .codebook_window import Window
from .hooks import watch
from .records import CodebookRecord, IntArray
from .sinks import Sink
from .step_monitor import StepMonitor


class CodebookMonitor(StepMonitor[CodebookRecord]):
    """Records what the codebooks of a model do while it is trained, and changes nothing of it.

    Each codebook is read by a forward hook, in training mode only; a step pre-hook of the optimizer closes each
    optimizer step, when the gradients are what the optimizer sees: unscaled, clipped, reduced over ranks. The counters
    stay on the device, and the host waits for it only when a record is made. No parameter, buffer or random number of
    the model is touched.

        monitor = CodebookMonitor(model, optimizer, [TraceSink("runs/mine")], every=100)
        for batch in data:
            ...  # train as before
        monitor.close()

    Args:
        model: Any module with quantizers in it that a probe recognises.
        optimizer: The optimizer whose steps are counted: the one that trains the codebook, or else the one that trains
            the encoder.
        sinks: Where records go. Under distributed training give sinks to rank 0 and an empty list to the others.
        every: Optimizer steps per record.

    Raises:
        InputError: No quantizer in the model is recognised.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        sinks: Iterable[Sink[CodebookRecord]] = (),
        *,
        every: int = 100,
    ):
        super().__init__(optimizer, sinks, every)
        self.codebooks = find_codebooks(model)
        self.windows = {name: Window(table) for name, codebook in self.codebooks.items() if (table := codebook.codes()) is not None}
        self._last_hits: dict[str, IntArray] = {}
        self.attach()

    def attach(self) -> None:
        super().attach()
        for name, codebook in self.codebooks.items():
            for number, tap in enumerate(codebook.taps):
                self._handles.append(watch(tap, self._reader(name, codebook, number)))

    def _reader(self, name: str, codebook: WatchedCodebook, number: int) -> Any:
        @torch.no_grad()
        def on_return(call: Call) -> None:
            if not codebook.module.training or recomputing():
                return
            reading = codebook.read(number, call)
            if reading is not None:
                self.windows[name].add(reading)

        return on_return

    def _read_step(self) -> None:
        for name, codebook in self.codebooks.items():
            self.windows[name].end_step(codebook.gradient())

    def _skip_step(self) -> None:
        for window in self.windows.values():
            window.skip_step()

    def _steps_open(self) -> int:
        return max(window.steps for window in self.windows.values())

    def _close_windows(self) -> Iterator[CodebookRecord]:
        for name, codebook in self.codebooks.items():
            record = self.windows[name].close(name, self.step, codebook.codes())
            self._last_hits[name] = record.hits
            yield record

    def count_resets(self, name: str, codes: Tensor) -> None:
        """Tell of ``codes`` (R,) that a remedy has just re-initialised; they are counted in the window that is open."""
        self.windows[name].resets[codes] += 1

    def last_hits(self, name: str) -> IntArray:
        """(K,) hits in the last record, or in the window that is open where there is no record yet."""
        return self._last_hits[name] if name in self._last_hits else self.windows[name].hits.cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        """The step and the open windows; with them a resumed run leaves the trace of an uninterrupted one."""
        return {"step": self.step, "windows": {name: window.state_dict() for name, window in self.windows.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``."""
        self.step = state["step"]
        for name, window in self.windows.items():
            window.load_state_dict(state["windows"][name])
