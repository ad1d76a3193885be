"""The names of the files of a run."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import InputError


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` beside ``path`` and rename it into place: readers see the old file or the new one, never half."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


@dataclass(frozen=True)
class RunDirectory:
    """A folder with one run in it.

    ``config.yaml`` (repeats the run), ``environment.json`` (versions, git, command, device, world size),
    ``metrics.jsonl`` (one JSON object per logged step), ``trace/<codebook>/part-*.parquet``, ``checkpoints/``,
    ``tensorboard/``, ``samples/``, ``evaluation-<split>.json``, ``findings.jsonl``, ``report/``; ``DONE`` at the end.
    A run of the second stage adds ``codes-<split>.parquet`` and ``positions-<split>.parquet``.
    """

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def findings(self) -> Path:
        return self.path / "findings.jsonl"

    @property
    def trace(self) -> Path:
        return self.path / "trace"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def report(self) -> Path:
        return self.path / "report"

    @property
    def done(self) -> Path:
        return self.path / "DONE"

    def evaluation(self, split: str) -> Path:
        """Where the figures over a whole split are kept."""
        return self.path / f"evaluation-{split}.json"

    def codes(self, split: str) -> Path:
        """Where the second stage's figures of each code over a split are kept."""
        return self.path / f"codes-{split}.parquet"

    def positions(self, split: str) -> Path:
        """Where its figures of each code at each position of the grid are kept."""
        return self.path / f"positions-{split}.parquet"

    def codebooks(self) -> list[Path]:
        """The trace folders of the run, one per codebook."""
        return sorted(path for path in self.trace.iterdir() if path.is_dir()) if self.trace.is_dir() else []

    def read_metrics(self) -> list[dict[str, Any]]:
        """The logged steps; a last line cut short by a kill is left out."""
        rows = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines() if self.metrics.exists() else []:
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return rows

    def read_json(self, path: Path) -> dict[str, Any]:
        """One JSON object of the run, or an empty one where the file is missing."""
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """One JSON object, written whole or not at all."""
        write_atomically(path, json.dumps(content, indent=2) + "\n")


@dataclass(frozen=True)
class AblationDirectory:
    """A folder with the runs of an ablation in it, and ``ablation.json``: what was to be compared, in that order."""

    path: Path

    @property
    def plan(self) -> Path:
        return self.path / "ablation.json"

    def write_plan(self, quantizers: Sequence[str], seeds: Sequence[int], runs: Iterable[RunDirectory]) -> None:
        """Say what is compared, as it was asked for.

        Raises:
            InputError: The folder cannot be made or written.
        """
        plan = {"quantizers": [*quantizers], "seeds": [*seeds], "runs": [self._name(run) for run in runs]}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(self.plan, json.dumps(plan, indent=2) + "\n")
        except OSError as error:
            raise InputError(f"cannot write {self.plan}: {error.strerror}") from None

    def in_order(self, runs: Sequence[RunDirectory]) -> list[RunDirectory]:
        """``runs`` as the plan names them, then by name those that it does not; as they are where there is no plan.

        Raises:
            InputError: The plan cannot be read.
        """
        if not self.plan.exists():
            return [*runs]
        rank = {name: i for i, name in enumerate(self._planned())}
        return sorted(runs, key=lambda run: (rank.get(self._name(run), len(rank)), self._name(run)))

    def _planned(self) -> list[str]:
        hint = 'it should hold {"runs": ["NAME", ...]}; without it runs are compared in the order of their names'
        try:
            plan = json.loads(self.plan.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:  # of JSON or of UTF-8
            raise InputError(f"cannot read {self.plan}: {error}; {hint}") from None
        names = plan.get("runs") if isinstance(plan, dict) else None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise InputError(f"cannot read {self.plan}: {hint}")
        return names

    def _name(self, run: RunDirectory) -> str:
        """The path of a run below this folder."""
        folder, path = self.path.resolve(), run.path.resolve()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


def find_runs(folder: Path) -> list[RunDirectory]:
    """The runs in ``folder``: the folder itself, or its subfolders (any depth) that hold a ``config.yaml``.

    Raises:
        InputError: The folder does not exist or holds no run.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    if (folder / "config.yaml").is_file():
        return [RunDirectory(folder)]
    runs = sorted(path.parent for path in folder.rglob("config.yaml"))
    if not runs:
        raise InputError(f"no runs in {folder}: a run is a folder with a config.yaml in it")
    return [RunDirectory(path) for path in runs]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree by their dotted names."""
    leaves = {}
    for name, value in tree.items():
        leaves |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves
