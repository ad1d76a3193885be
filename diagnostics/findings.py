"""Findings: what was seen, told in a sentence with its numbers."""

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from .files import write_atomically

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


def put_findings(path: Path, findings: Iterable[Finding], checks: Collection[str]) -> None:
    """Put what ``checks`` have found into ``RUN/findings.jsonl``, in the place of what they found before.

    Args:
        path: The file; made where it is not there.
        findings: What they found now.
        checks: Names of all checks that looked; the findings of others stay.
    """
    kept = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    lines = [line for line in kept if json.loads(line)["check"] not in checks]
    lines += [json.dumps(asdict(finding)) for finding in findings]
    write_atomically(path, "".join(f"{line}\n" for line in lines))


def append_finding(path: Path, finding: Finding) -> None:
    """Add a line of JSON to ``RUN/findings.jsonl``."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(finding)) + "\n")
