"""The training run: the loop around a stage, its files and its ends."""

import math
import time
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric

from ...diagnostics import RunDirectory
from ...diagnostics.errors import RunFailedError
from ...diagnostics.findings import Finding
from ...diagnostics.progress import progress
from ...diagnostics.run import write_atomically
from .checkpoint import load_checkpoint, load_weights, save_checkpoint
from .environment import environment
from .hparams import add_hparams
from .interrupt import stop_on_signal
from .logbook import Logbook, RunLogbook
from .meter import Meter
from .settings import RunConfig
from .stage import Stage

Outcome = Literal["done", "interrupted"]


class Trainer:
    """One run from its first or next step to its end."""

    def __init__(self, fabric: Fabric, config: RunConfig, stage: Stage, run: RunDirectory, resume: bool):
        self.fabric, self.config, self.stage, self.run_folder = fabric, config, stage, run
        self.learner = stage.learner
        self.last = run.last_checkpoint
        state = load_checkpoint(self.last) if resume and self.last.exists() else None
        self.meter = Meter()
        self.done, self.seconds = 0, 0.0
        self.best = float("inf")
        if state is not None:
            self._restore(state)
        self.logbook = self._open_files(self.done if resume else None) if fabric.is_global_zero else Logbook()
        self.learner.monitor.sinks = stage.sinks(self.logbook)
        if state is None:
            stage.start()

    def _restore(self, state: dict[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"], lambda module, weights: load_weights(module, weights, self.last))
        self.meter.load_state_dict(state["meter"], self.fabric.device)
        self.done, self.seconds, self.best = state["step"], state["seconds"], state["best"]

    def _open_files(self, resume_at: int | None) -> Logbook:
        """Nothing is written before this: what is wrong with settings, data or weights has shown by now."""
        run = self.run_folder
        logbook = RunLogbook(run, resume_at, self.config.train.tensorboard)
        write_atomically(run.config, self.config.to_yaml())
        run.write_json(run.environment, environment(self.fabric.device, self.fabric.world_size))
        return logbook

    def run(self) -> Outcome:
        """Train to the last step, then evaluate; or stop when asked to."""
        with stop_on_signal() as stop, progress("train", self.config.train.steps, start=self.done) as show:
            clock = Clock(self.done)
            while self.done < self.config.train.steps and not self._asked_to_stop(bool(stop)):
                self.meter.add(self.stage.step(self.done))
                self.done += 1
                if self._due(self.config.train.log_every):
                    self.seconds += clock.lap()
                    speed = self.config.train.batch_size * clock.steps_per_second(self.done)
                    show(self.done, self._log(speed))
                if self._due(self.config.train.validate_every):
                    self.seconds += clock.lap()
                    if self.fabric.broadcast(self._validate()):
                        self._save(self.run_folder.best_checkpoint)
                    clock.lap()
                if self._due(self.config.train.checkpoint_every):
                    self.seconds += clock.lap()
                    self._save(self.last)
                    clock.lap()
            self.seconds += clock.lap()
        if self.done < self.config.train.steps:
            self._save(self.last)
            self._close()
            return "interrupted"
        self._finish()
        return "done"

    def _asked_to_stop(self, here: bool) -> bool:
        """With several ranks all stop after the same step: they ask each other now and then."""
        if self.fabric.world_size > 1 and self.done % self.config.train.log_every:
            return False
        return self._any_rank(here)

    def _any_rank(self, flag: bool) -> bool:
        """Whether ``flag`` is set on any rank; every rank gets the same answer."""
        if self.fabric.world_size == 1:
            return flag
        return bool(self.fabric.all_reduce(torch.tensor(float(flag)), reduce_op="max"))

    def _due(self, every: int | None) -> bool:
        return self.done == self.config.train.steps or (every is not None and self.done % every == 0)

    def _log(self, images_per_second: float) -> str:
        """Write the means since the last time; the figures worth showing."""
        values = self._finite(self.meter.read())
        self.meter.clear()
        rate = self.learner.optimizer.param_groups[0]["lr"]
        extra = {"optimizer/lr": rate, "speed/images_per_second": images_per_second}
        self.logbook.write(self.done, values | extra)
        shown = [f"{name.removeprefix('loss/')} {values[name]:.4f}" for name in values if name.startswith("loss/")]
        return ", ".join([f"{images_per_second:.0f} images/s", *shown, self.stage.status()])

    def _finite(self, values: dict[str, float]) -> dict[str, float]:
        """The values, where all are finite; else the end of the run."""
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        if not self._any_rank(bool(bad)):
            return values
        path = self.run_folder.failed_checkpoint
        self._write_state(path)
        finding = Finding(
            check="finite losses",
            severity="problem",
            statement=f"{', '.join(bad)} not finite within the {self.config.train.log_every} steps up to {self.done}",
            evidence=values | {"step": self.done},
            advice=f"{self.last.name} is older; lower optimizer.lr, set optimizer.clip_norm or train.precision 32",
        )
        self.logbook.add_finding(finding)
        self._close()
        raise RunFailedError(f"{finding.statement}; see {path} and {self.run_folder.findings}")

    def _validate(self) -> bool:
        """Have the first rank look at the validation split; whether it is better than ever before."""
        if not self.fabric.is_global_zero:
            return False
        look = self.stage.look(self.done)
        self.logbook.write(self.done, look.values)
        for grid in look.grids:
            self.logbook.show(self.done, grid)
        better = look.score < self.best
        self.best = min(self.best, look.score)
        return better

    def _save(self, path: Path) -> None:
        """A checkpoint of a healthy state, with everything recorded so far on disk before it."""
        self._finite(self.meter.read())
        self.learner.monitor.flush()
        self._write_state(path)

    def _write_state(self, path: Path) -> None:
        state = {
            "step": self.done,
            "seconds": self.seconds,
            "best": self.best,
            "meter": self.meter.state_dict(),
            "learner": self.learner.state_dict(),
        }
        if self.fabric.is_global_zero:
            save_checkpoint(path, state)

    def _finish(self) -> None:
        """The last record, the evaluation over the test split, and ``DONE``."""
        self.learner.monitor.close()
        figures = self.stage.finish(self.logbook, self.done)
        self.logbook.on_board(lambda writer: add_hparams(writer, self.config, figures, self.done))
        self.logbook.finish({"checkpoint": "last", "step": self.done, **figures}, self._summary())
        self._close()

    def _summary(self) -> dict[str, float]:
        epochs = self.done / self.stage.batches.steps_per_epoch
        return {
            "steps": self.done,
            "epochs": epochs,
            "seconds": self.seconds,
            "device_hours_per_epoch": self.seconds / 3600 * self.fabric.world_size / epochs,
            "trainable_parameters": self.learner.parameters_trained(),
        }

    def _close(self) -> None:
        self.learner.monitor.flush()
        self.learner.monitor.detach()
        self.logbook.close()


class Clock:
    """Seconds since the last lap, and the pace since the last time that was asked."""

    def __init__(self, step: int):
        self._lap = self._pace_at = time.perf_counter()
        self._pace_step = step

    def lap(self) -> float:
        """Seconds since the last lap."""
        now = time.perf_counter()
        seconds, self._lap = now - self._lap, now
        return seconds

    def steps_per_second(self, step: int) -> float:
        """Pace since this was last asked."""
        now = time.perf_counter()
        pace = (step - self._pace_step) / (now - self._pace_at)
        self._pace_at, self._pace_step = now, step
        return pace
