"""The names of the files of a run."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import InputError, unknown
from .files import write_atomically

#: The stages of a run, as its config names them. A config from before there were two names none.
STAGES = ("vqgan", "transformer")


@dataclass(frozen=True)
class RunDirectory:
    """A folder with one run in it.

    ``config.yaml`` (repeats the run), ``environment.json`` (versions, git, command, device, world size),
    ``metrics.jsonl`` (one JSON object per logged step), ``trace/<codebook>/part-*.parquet``, the tables
    ``boundary/<codebook>/``, ``movement/``, ``latents/`` and ``geometry/``, ``snapshots/<codebook>/``,
    ``checkpoints/``, ``tensorboard/``, ``samples/``, ``evaluation-<split>.json``, ``findings.jsonl``, ``report/``;
    ``DONE`` at the end.
    What the instrument leaves of a model that vqtool did not train is a run too: ``trace/``, the tables and snapshots,
    and no config.
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

    @property
    def last_checkpoint(self) -> Path:
        return self.checkpoint("last")

    @property
    def best_checkpoint(self) -> Path:
        return self.checkpoint("best")

    @property
    def failed_checkpoint(self) -> Path:
        return self.checkpoint("failed")

    @property
    def first_stage_copy(self) -> Path:
        """The frozen first stage that a second one stands on."""
        return self.checkpoint("first-stage")

    @property
    def condition_stage_copy(self) -> Path:
        """The frozen first stage whose codes are its condition."""
        return self.checkpoint("condition-stage")

    def checkpoint(self, name: str) -> Path:
        """A checkpoint by its name, ``last`` or ``best``."""
        return self.checkpoints / f"{name}.ckpt"

    @property
    def has_config(self) -> bool:
        """Whether vqtool trained the run: what the instrument leaves of another model has no config."""
        return self.config.is_file()

    @property
    def is_run(self) -> bool:
        """Whether there is a run: a config, or the records of a codebook alone."""
        return self.has_config or bool(self.codebook_names())

    @property
    def is_finished(self) -> bool:
        """Whether it has come to its end."""
        return self.done.exists()

    @property
    def stage(self) -> str:
        """Which of ``STAGES`` the run is of; a trace without a config is that of a codebook, which the first one has.

        Raises:
            InputError: The folder is no run, or one of no such stage.
        """
        if self.is_run and not self.has_config:
            return STAGES[0]
        stage = self.read_config().get("stage", STAGES[0])
        if stage not in STAGES:
            raise unknown("stage", stage, STAGES)
        return stage

    def read_config(self) -> dict[str, Any]:
        """The tree of settings, as it stands.

        Raises:
            InputError: The folder is no run that vqtool trained, or its config cannot be read.
        """
        if not self.has_config:
            kind = "a run that vqtool trained" if self.is_run else "a run"
            raise InputError(f"{self.path} is not {kind}: it has no {self.config.name}")
        return load_config(self.config)

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
        return folders_in(self.trace)

    def codebook_names(self) -> list[str]:
        """The codebooks that the run has records of: an implicit one of very many codes has no trace, only digits."""
        names = {path.name for folder in (self.trace, self.table("digits")) for path in folders_in(folder)}
        return sorted(names, key=by_number)

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    def table(self, name: str) -> Path:
        """The folder of a table of rows, which holds one folder per codebook."""
        return self.path / name

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


def folders_in(folder: Path) -> list[Path]:
    """The folders in a folder, by name, ``layers.10`` after ``layers.9``; none where it does not exist."""
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted(found, key=lambda path: by_number(path.name))


def by_number(name: str) -> list[int | str]:
    """What to sort names by so that the numbers in them count as numbers."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]  # text and number in turn


def load_config(path: Path) -> dict[str, Any]:
    """Read a tree of settings from a YAML file, without validating it.

    Raises:
        InputError: The file is missing, is not YAML or holds no tree of keys.
    """
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read config {path}: {getattr(error, 'strerror', None) or error}") from None
    except yaml.YAMLError as error:
        raise InputError(f"config {path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise InputError(f"config {path} should hold keys and values, such as 'train: {{steps: 400}}'")
    return tree


def find_runs(folder: Path) -> list[RunDirectory]:
    """The runs in ``folder``: the folder itself, or its subfolders, at any depth.

    Raises:
        InputError: The folder does not exist or holds no run.
    """
    if not folder.is_dir():
        raise InputError(f"no such folder: {folder}")
    own = RunDirectory(folder)
    if own.is_run:
        return [own]
    marks = (own.config, own.trace, own.table("digits"))
    paths = {path.parent for mark in marks for path in folder.rglob(mark.name)}
    runs = [run for path in sorted(paths) if (run := RunDirectory(path)).is_run]
    if not runs:
        raise InputError(
            f"no runs in {folder}: a run is a folder with a {own.config.name} in it, which vqtool train writes, or with"
            f" a {own.trace.name}/, which the monitor of any other model writes through TraceSink(folder)"
        )
    return runs


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of a tree by their dotted names."""
    leaves = {}
    for name, value in tree.items():
        leaves |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return leaves
