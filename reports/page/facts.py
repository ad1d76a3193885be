"""What is known of a run besides its traces, and what is not."""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...diagnostics.errors import InputError
from ...diagnostics.run import RunDirectory

SEVERITIES = ("problem", "warning", "info")


def number(value: Any) -> float:
    """``value`` as a float, NaN where it is missing or no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


@dataclass(frozen=True)
class RunFacts:
    """One run as a report sees it; every part may be missing, for a run that has just begun or was interrupted."""

    run: RunDirectory

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.run.path.resolve().name

    @cached_property
    def config(self) -> dict[str, Any]:
        """The config tree.

        Raises:
            InputError: It cannot be read.
        """
        return self.run.read_config()

    def setting(self, path: str, default: Any = None) -> Any:
        """A setting by its dotted path, such as ``quantizer.spec``."""
        value: Any = self.config
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    @property
    def is_transformer(self) -> bool:
        """Whether the run is one of the second stage; older runs of the first stage name no stage."""
        return self.run.stage == "transformer"

    @property
    def quantizer(self) -> str:
        """The quantizer's spec, such as ``ema+reset``."""
        return str(self.setting("quantizer.spec", "unknown"))

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The logged steps."""
        return self.run.read_metrics()

    @cached_property
    def done(self) -> dict[str, Any]:
        """What a finished run says of itself; empty for another."""
        return self._json(self.run.done.name)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Command, versions, device."""
        return self._json(self.run.environment.name)

    def evaluation(self, split: str) -> dict[str, Any]:
        """Figures over a whole split; empty where it was not evaluated."""
        return self._json(self.run.evaluation(split).name)

    def splits(self) -> list[str]:
        """The splits that were evaluated, ``test`` first."""
        found = [path.stem.removeprefix("evaluation-") for path in self.run.path.glob("evaluation-*.json")]
        return sorted(found, key=lambda split: (split != "test", split))

    def findings(self) -> list[dict[str, Any]]:
        """The findings, the most severe first; a last line cut short by a kill is left out."""
        found = []
        for line in self.run.findings.read_text(encoding="utf-8").splitlines() if self.run.findings.exists() else []:
            try:
                found.append(json.loads(line))
            except json.JSONDecodeError:
                break
        rank = {severity: i for i, severity in enumerate(SEVERITIES)}
        return sorted(found, key=lambda finding: rank.get(str(finding.get("severity")), len(rank)))

    @property
    def last_step(self) -> int:
        """The last logged step, 0 where none was logged."""
        return max((int(row["step"]) for row in self.metrics if "step" in row), default=0)

    @property
    def status(self) -> str:
        """One sentence: finished, interrupted or running, or just begun."""
        steps = self.setting("train.steps", "an unknown number of")
        if self.run.is_finished:
            return f"finished: {self.done.get('steps', steps)} steps in {number(self.done.get('seconds')):,.0f} s"
        if not self.metrics:
            return f"just begun: nothing logged yet of {steps} steps"
        return f"interrupted or still running: step {self.last_step} of {steps} is the last one logged"

    def _json(self, name: str) -> dict[str, Any]:
        path = self.run.path / name
        try:
            return self.run.read_json(path)
        except ValueError as error:  # of JSON or of UTF-8
            raise InputError(f"cannot read {path}: {error}") from None
