"""``CodebookMonitor``: the instrument itself."""

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, in_short, unknown
from ..probes import Call, NotAQuantizerError, Reader, WatchedCodebook, find_codebooks
from ..ranks import in_group, sum_over_ranks
from ..recomputation import trains
from .attachment import RankCall, check_attachment, started
from .codebook_watch import CodebookWatch, Detail
from .hooks import watch
from .optimizer_steps import GradientState
from .records import CodebookRecord, IntArray
from .reference import ReferenceBatch
from .sinks import Sink
from .step_monitor import Optimizers, StepMonitor
from .sums import on_host
from .terms import LossTerms

OnError = Literal["raise", "warn"]


class CodebookMonitor(StepMonitor[CodebookRecord]):
    """Records what the codebooks of a model do while it is trained, and changes nothing of it.

    Each codebook is read by a hook on its quantizer. A forward counts in training mode with gradients enabled, once
    where activation checkpointing repeats it; a record says how many were counted. Hooks of the optimizer close each
    optimizer step, when the gradients are what the optimizer sees: unscaled, clipped, reduced over ranks. The counters
    stay on the device; the host waits for it when a record is made or a snapshot taken, and once at the first call of
    each quantizer. No parameter, buffer or random number of
    the model is touched, and a copy of the model, or one that was saved, is not watched.

        monitor = CodebookMonitor(model, optimizer, [TraceSink("runs/mine")], every=100)
        for batch in data:
            ...  # train as before
        monitor.close()

    Args:
        model: Any module with quantizers in it that a probe recognises.
        optimizer: The optimizer that trains it, or a list of several, of which the steps of the first are counted.
            What accelerate, Fabric or Lightning have wrapped is unwrapped.
        sinks: Where records go. Under distributed training attach on every rank, with sinks on rank 0 and an empty list
            on the others.
        every: Optimizer steps per record.
        scaler: The gradient scaler, where one is used. None: it is found when it takes its first step; steps that it
            skipped before that one count, but their tokens are those of the window that is open then.
        read: Readers for quantizers that no probe recognises, by their paths in the model.
        detail: What is recorded beside the counters of every code; None for nothing.
        reference: Runs the model on a batch that is always the same, ``lambda: model(batch)``, so that a record can say
            how many of its tokens changed their code. It is called in evaluation mode, without gradients.
        on_error: What to do about a codebook that turns out not to be readable once training is under way: "raise", or
            "warn" once and go on without it.

    Raises:
        InputError: No quantizer in the model is recognised, or an argument is not what it should be.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        sinks: Iterable[Sink[CodebookRecord]] = (),
        *,
        every: int = 100,
        scaler: torch.amp.GradScaler | None = None,
        read: Mapping[str, Reader] | None = None,
        detail: Detail | None = Detail(),  # noqa: B008 (a tuple)
        reference: Callable[[], Any] | None = None,
        on_error: OnError = "raise",
    ):
        super().__init__(optimizer, sinks, every, scaler)
        if on_error not in ("raise", "warn"):
            raise unknown("on_error", on_error, ("raise", "warn"))
        self.on_error: OnError = on_error
        self.codebooks = find_codebooks(model, read)
        check_attachment(model, self.codebooks, self.optimizers)
        late = started(self.optimizers[0])
        self.watches = {
            name: CodebookWatch(name, codebook, self.optimizers, detail, late)
            for name, codebook in self.codebooks.items()
        }
        self._broken: dict[str, str] = {}  # codebooks that are recorded no longer, and why
        self._unseen: set[str] = set()
        self._ranks = RankCall()
        self._handles: list[Any] = []
        self._model = model
        self._reference: ReferenceBatch | None = None
        if reference is not None:
            self.watch_reference(reference)
        self.attach()

    def attach(self) -> None:
        super().attach()
        for name, codebook in self.codebooks.items():
            for number, tap in enumerate(codebook.taps):
                self._handles.append(watch(tap, self._reader(name, codebook, number)))

    def detach(self) -> None:
        super().detach()
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _reader(self, name: str, codebook: WatchedCodebook, number: int) -> Callable[[Call], None]:
        def on_return(call: Call) -> None:
            if not codebook.module.training or name in self._broken or not trains():
                return
            with torch.no_grad(), self._giving_up(name):
                reading = codebook.read(number, call)
                if reading is not None:
                    self._steps.settle()
                    self.watches[name].add(reading, self.step + 1)

        return on_return

    def _read_gradients(self, state: GradientState) -> None:
        self._ranks.check()
        due = (self.step + 1) % self.every == 0
        for name, watched in self.watches.items():
            with self._giving_up(name):
                watched.read_gradients(state)
                if due:
                    watched.read_codes()  # those that the forward saw, not those after the step

    def _close_step(self) -> None:
        for name, watched in self.watches.items():
            with self._giving_up(name):
                watched.close_step(self.step)
            self._hand_over_snapshots(name, watched)

    def _skip_step(self) -> None:
        for name, watched in self.watches.items():
            with self._giving_up(name):
                watched.skip_step(self.step)
            self._hand_over_snapshots(name, watched)

    def _hand_over_snapshots(self, name: str, watched: CodebookWatch) -> None:
        """Snapshots do not wait for a record: each holds a codebook."""
        taken = []
        with self._giving_up(name):
            taken = watched.take_snapshots()
        for snapshot, geometry in taken:
            self._hand_over("write_snapshot", snapshot)
            self._hand_over("write_row", geometry)

    def _forwards_open(self) -> int:
        return max(watched.forwards_open for watched in self.watches.values())

    def _steps_open(self) -> int:
        return max(watched.steps_open for watched in self.watches.values())

    def _close_windows(self) -> Iterator[CodebookRecord]:
        changes = self._changes()
        for name, watched in self.watches.items():
            if watched.window is None:
                if name not in self._broken:
                    self._warn_unseen(name)
                continue
            record, rows = None, []
            with self._giving_up(name):
                record, rows = watched.close_window(self.step, changes.get(name, {}))
            if self._broken_anywhere(name, watched.window.hits.device):
                continue
            for row in rows:
                self._hand_over("write_row", row)
            if record is not None:
                yield record

    def _changes(self) -> dict[str, dict[str, float]]:
        """What the reference batch says of each codebook; it is the user's function, and may fail like any other."""
        if self._reference is None:
            return {}
        try:
            return self._reference.compare()
        except Exception as error:
            told = f"the reference batch cannot be encoded: {in_short(error)}"
            if self.on_error == "raise":
                raise InputError(told) from error
            self._reference = None
            warnings.warn(f"vqtool compares it no longer: {told}", stacklevel=2)
            return {}

    def _hand_over(self, method: str, item: Any) -> None:
        try:
            super()._hand_over(method, item)
        except OSError as error:
            if self.on_error == "raise":
                raise
            warnings.warn(f"vqtool could not write a record, and tries again with the next: {error}", stacklevel=2)

    def _broken_anywhere(self, name: str, device: torch.device) -> bool:
        """Whether a rank could not read the codebook; who could not takes part in the sums all the same."""
        broken = torch.tensor(float(name in self._broken), device=device)
        return bool(sum_over_ranks(broken) > 0) if in_group() else name in self._broken

    @contextmanager
    def _giving_up(self, name: str) -> Iterator[None]:
        """Where what is inside cannot be done for the codebook ``name``: do what ``on_error`` says."""
        try:
            yield
        except NotAQuantizerError as error:
            self._drop(name, str(error))
        except InputError as error:
            self._give_up(name, error)
        except Exception as error:
            self._give_up(name, InputError(f"{name} cannot be read: {in_short(error)}"))

    def _give_up(self, name: str, error: InputError) -> None:
        if self.on_error == "raise":
            raise error
        if name not in self._broken:
            self._broken[name] = str(error)
            warnings.warn(f"vqtool records {name} no longer: {error}", stacklevel=2)

    def _drop(self, name: str, why: str) -> None:
        """Watch no longer what turned out to be no quantizer; nothing is wrong with it."""
        self._broken[name] = why
        self.codebooks.drop(name, why)

    def _warn_unseen(self, name: str) -> None:
        if name not in self._unseen:
            self._unseen.add(name)
            warnings.warn(
                f"vqtool has seen no training forward of {name} in {self.step} optimizer steps and records nothing of"
                " it: is another copy of the model trained, or was it compiled? A quantizer inside torch.compile cannot"
                " be seen; leave it out with torch.compiler.disable",
                stacklevel=2,
            )

    def loss_terms(self, terms: LossTerms) -> None:
        """Tell of the terms of the loss, before its backward pass: what each asks of the encoder is recorded.

            monitor.loss_terms({"reconstruction": (1.0, rec), "commitment": (0.25, commit)})

        Costs a backward pass from each term to the latents, at the first four steps and then every hundredth.

        Args:
            terms: By name the weight of each and its value () before weighting, with its graph; of a micro-batch its
                share in the step.
        """
        with ExitStack() as stack:
            for watched in self.watches.values():
                stack.enter_context(watched.paused())  # a term's gradient comes by the codebooks before, too
            for name, watched in self.watches.items():
                if name not in self._broken:
                    with self._giving_up(name):
                        watched.add_terms(terms, self.step + 1)

    def watch_reference(self, encode: Callable[[], Any]) -> None:
        """Have ``encode`` run the model on the batch that records are compared by; see ``reference``."""
        self._reference = ReferenceBatch(self._model, encode, self.codebooks)

    def count_resets(self, name: str, codes: Tensor) -> None:
        """Tell of ``codes`` (R,) that a remedy has just re-initialised; they are counted in the window that is open."""
        self.watches[name].tell_resets(codes)

    def last_hits(self, name: str) -> IntArray:
        """(K,) hits in the last record, or in the window that is open where there is no record yet."""
        watched = self.watches[name]
        if watched.last_hits is not None:
            return watched.last_hits
        if watched.window is None:
            return np.zeros(watched.codebook.size, np.int64)
        return on_host(watched.window.hits)

    def state_dict(self) -> dict[str, Any]:
        """The step and the open windows; with them a resumed run leaves the trace of an uninterrupted one."""
        return {
            "step": self.step,
            "watches": {name: watched.state_dict() for name, watched in self.watches.items()},
            "reference": self._reference and self._reference.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from ``state_dict``, also from one of an older version, which knew the counters alone."""
        self.step = state["step"]
        for name, watched in self.watches.items():
            kept = state["watches"][name] if "watches" in state else {"window": state["windows"][name]}
            watched.load_state_dict(kept)
        if self._reference is not None and state.get("reference"):
            self._reference.load_state_dict(state["reference"])
