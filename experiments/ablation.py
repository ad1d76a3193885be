"""Ablations: the same training run once per quantizer spec and seed."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from ..diagnostics.errors import InputError
from ..diagnostics.run import RunDirectory
from ..vqgan.autoencoder.settings import AutoencoderConfig, build_autoencoder_config
from ..vqgan.training.interrupt import stop_on_signal

Status = Literal["done", "skipped", "broken", "interrupted"]


class Trial(NamedTuple):
    """One run of an ablation.

    Attributes:
        config: Its settings.
        run: Its folder.
        arguments: What ``vqtool`` is called with to run it.
    """

    config: AutoencoderConfig
    run: RunDirectory
    arguments: list[str]

    @property
    def command(self) -> str:
        """The command as a person would type it."""
        return shlex.join(["vqtool", *self.arguments])


def plan(
    specs: Iterable[str],
    seeds: Iterable[int],
    folder: Path,
    arguments: Sequence[str],
    configure: Callable[[str, int], AutoencoderConfig],
) -> list[Trial]:
    """One trial per spec and seed, each in a folder of its own below ``folder``.

    Args:
        specs: Quantizer specs.
        seeds: Seeds; runs with the same seed share data order and the initial encoder and decoder.
        folder: The folder of the ablation.
        arguments: The options of ``vqtool train`` that all trials share.
        configure: The settings for a spec and a seed.

    Raises:
        InputError: A spec is wrong or named twice, or a folder holds a run with other settings.
    """
    trials = []
    for spec in specs:
        for seed in seeds:
            path = folder / f"{spec.replace(':', ',')}-seed{seed}"
            own = ["--quantizer", spec, "--seed", str(seed), "--out", str(path)]
            trials.append(Trial(configure(spec, seed), RunDirectory(path), ["train", *arguments, *own]))
    names = [trial.run.path for trial in trials]
    if twice := sorted({path.name for path in names if names.count(path) > 1}):
        raise InputError(f"run {twice[0]!r} stands twice in this ablation: each quantizer and seed may be named once")
    for trial in trials:
        if trial.run.has_config and build_autoencoder_config(trial.run.read_config()) != trial.config:
            raise InputError(f"{trial.run.path} holds a run with other settings; choose another folder")
    return trials


def run(trials: Sequence[Trial], tell: Callable[[str], None]) -> list[Status]:
    """Run the trials one after the other, each in a process of its own; what became of each.

    A finished trial is skipped, one that was cut short goes on where it was, a broken one does not stop the others.
    SIGINT and SIGTERM end the trial that is running, after a checkpoint, and with it the ablation.
    """
    statuses: list[Status] = []
    for number, trial in enumerate(trials, start=1):
        tell(f"[{number}/{len(trials)}] {trial.run.path.name}")
        statuses.append(_run_one(trial))
        if statuses[-1] == "broken":
            tell(f"{trial.run.path.name} is broken; to see it alone: {trial.command}")
        if statuses[-1] == "interrupted":
            break
    return statuses


def _run_one(trial: Trial) -> Status:
    if trial.run.is_finished:
        return "skipped"
    resume = ["--resume"] if trial.run.path.exists() else []
    with stop_on_signal() as stop:
        child = subprocess.Popen([sys.executable, "-m", "vqtool", *trial.arguments, *resume])
        while child.poll() is None:
            try:
                child.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                if stop:
                    child.terminate()
                    child.wait()
    if stop:
        return "interrupted"
    return "done" if child.returncode == 0 else "broken"
