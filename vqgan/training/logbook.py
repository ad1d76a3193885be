"""What a run writes down about itself: metrics, TensorBoard, the environment it ran in."""

import json
import math
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from ...diagnostics.ranks import mean_over_ranks
from ...diagnostics.run import RunDirectory, write_atomically

PACKAGES = ("vqtool", "torch", "torchvision", "lightning-fabric", "lpips", "torchmetrics", "numpy", "pyarrow")


class Meter:
    """Means of losses since the last reading, over steps and ranks; on the device until they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Take in the losses of one step."""
        for name, loss in losses.items():
            self.sums[name] = self.sums.get(name, 0) + loss.double()
            self.counts[name] = self.counts.get(name, 0) + 1

    def _sums_of_mean_rank(self) -> Tensor:
        return mean_over_ranks(torch.stack(list(self.sums.values())))

    def read(self) -> dict[str, float]:
        """The means; here the host waits for the device, and the ranks for each other."""
        if not self.sums:
            return {}
        return {
            name: total / self.counts[name]
            for name, total in zip(self.sums, self._sums_of_mean_rank().tolist(), strict=True)
        }

    def clear(self) -> None:
        """Start anew."""
        self.sums, self.counts = {}, {}

    def state_dict(self) -> dict[str, Any]:
        """The sums so far; to be taken by every rank."""
        sums = dict(zip(self.sums, self._sums_of_mean_rank().unbind(), strict=True)) if self.sums else {}
        return {"sums": {name: value.clone() for name, value in sums.items()}, "counts": dict(self.counts)}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Go on from ``state_dict``."""
        self.sums = {name: value.to(device) for name, value in state["sums"].items()}
        self.counts = dict(state["counts"])


class Logbook:
    """Appends to ``metrics.jsonl`` and mirrors it in TensorBoard.

    Args:
        run: The run folder.
        resume_at: Optimizer step that the run goes on from; what was logged after it is dropped. None for a new run.
        tensorboard: Whether to write TensorBoard files.
    """

    def __init__(self, run: RunDirectory, resume_at: int | None, tensorboard: bool):
        self.run = run
        self.rows: list[dict[str, Any]] = []
        if resume_at is not None:
            kept = [row for row in run.read_metrics() if row["step"] <= resume_at]
            write_atomically(run.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        purge = None if resume_at is None else resume_at + 1
        self.writer = SummaryWriter(str(run.tensorboard), purge_step=purge) if tensorboard else None

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One line of metrics at ``step``; numbers that are not finite are written as null."""
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        with self.run.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **row}) + "\n")
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Put everything down."""
        if self.writer is not None:
            self.writer.close()


def environment(device: torch.device, world_size: int) -> dict[str, Any]:
    """What ran where: for ``environment.json``."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "command": shlex.join(["vqtool", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": _git_commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "device": f"{device.type}: {name}",
        "threads": torch.get_num_threads(),
        "world_size": world_size,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the checkout that vqtool runs from, with ``-dirty`` where it was changed; None for an installed one."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
