"""Findings: what was seen, told in a sentence with its numbers."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Severity = Literal["info", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check saw.

    Attributes:
        check: Name of the check.
        severity: How much it matters.
        statement: One sentence with its numbers.
        codebook: The codebook concerned, None for the run as a whole.
        evidence: The numbers, by name.
        advice: What to do about it.
        source: Paper or document that the check rests on.
    """

    check: str
    severity: Severity
    statement: str
    codebook: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    advice: str = ""
    source: str = ""


def append_finding(path: Path, finding: Finding) -> None:
    """Add a line of JSON to ``RUN/findings.jsonl``."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(finding)) + "\n")
