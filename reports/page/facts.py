"""What is known of a run besides its traces, and what is not."""

import json
import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...diagnostics.errors import InputError
from ...diagnostics.run import RunDirectory
from .records import codebook_size, last_step
from .words import counted

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
        """The config tree; empty for a run that vqtool did not train.

        Raises:
            InputError: It cannot be read.
        """
        return self.run.read_config() if self.run.has_config else {}

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

    @cached_property
    def codebook_sizes(self) -> dict[str, int]:
        """K of each codebook by its name; one of which nothing can be read is left out."""
        sizes = {}
        for name in self.run.codebook_names():
            with suppress(InputError):
                sizes[name] = codebook_size(self.run, name)
        return sizes

    @property
    def size(self) -> str:
        """The codebooks and their sizes: "512 codes", "4 codebooks of 512 codes", "2 codebooks of 256 to 512 codes"."""
        if self.run.has_config:
            return f"{self.setting('quantizer.codebook_size', 'unknown size')} codes"
        sizes = sorted(set(self.codebook_sizes.values()))
        if not sizes:
            return "no codebook that can be read"
        codes = counted(sizes[0], "code") if len(sizes) == 1 else f"{sizes[0]:,} to {counted(sizes[-1], 'code')}"
        books = len(self.codebook_sizes)
        return codes if books == 1 else f"{books} codebooks of {codes}"

    @property
    def model(self) -> str:
        """What the run is of, in a few words for below a heading."""
        if not self.run.has_config:
            return self.size
        return f"quantizer {self.quantizer}, {self.size}, data {self.setting('data.spec', 'unknown')}"

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

    @cached_property
    def last_record(self) -> int:
        """The step of the last record of any codebook, 0 where there is none or it was of no training."""
        return max((last_step(self.run, name) for name in self.codebook_sizes), default=0)

    @property
    def status(self) -> str:
        """One sentence: finished, interrupted or running, or just begun; how far the trace goes where it is all."""
        if not self.run.has_config:
            if not self.codebook_sizes:
                return "begun: no record of any codebook was written yet"
            if not self.last_record:
                return "one pass of a trained model, measured without training"
            return f"recorded up to step {self.last_record:,}"
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
