"""The names of the files of an ablation."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .files import write_atomically
from .run import RunDirectory


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
