"""What the lint has to say, as a value and as text."""

from dataclasses import dataclass

from ..findings import Finding, Severity
from .check import Skipped
from .checks import CHECKS
from .evidence import Trial
from .facts import facts

#: Severities in the order in which they are told, and what people call them.
SEVERITIES: dict[Severity, str] = {"problem": "problem", "warning": "warning", "info": "note"}


@dataclass(frozen=True)
class LintReport:
    """What the lint has to say; as a string, all of it.

    Attributes:
        watched: What is watched of the model and what is not, a line each; and the ranks, where there are several.
        findings: What is wrong, what matters most first.
        skipped: The checks that could not judge, and why.
        trial: What was seen, to look at in detail.
    """

    watched: str
    findings: list[Finding]
    skipped: list[Skipped]
    trial: Trial

    @property
    def passed(self) -> list[str]:
        """The checks that judged the model, or at least one codebook of it, and found nothing."""
        told = {finding.check for finding in self.findings}
        return [name for name in CHECKS if name not in told and not self._unjudged(name)]

    def _unjudged(self, name: str) -> bool:
        skipped = {skip.codebook for skip in self.skipped if skip.check == name}
        return None in skipped or skipped >= self.trial.seen.keys()

    def _unjudged_by_reason(self) -> dict[str, list[str]]:
        """The checks that could judge nothing, by what kept them from it."""
        reasons: dict[str, list[str]] = {}
        for name in filter(self._unjudged, CHECKS):
            whys = dict.fromkeys(skip.why for skip in self.skipped if skip.check == name)
            reasons.setdefault("; ".join(whys), []).append(name)
        return reasons

    def __str__(self) -> str:
        return f"{self.watched}\n{self.verdict}"

    @property
    def verdict(self) -> str:
        """What was measured, what is wrong, what passed, and what could not be judged."""
        lines = [facts(seen) for seen in self.trial.seen.values() if seen.steps]
        for finding in self.findings:
            lines += ["", *_told(finding)]
        counts = [_counted(self.findings, *names) for names in SEVERITIES.items()]
        lines += [
            "",
            f"{', '.join(counts)}; {len(self.passed)} of {len(CHECKS)} checks passed: {', '.join(self.passed)}",
        ]
        lines += [f"not judged: {', '.join(names)}: {why}" for why, names in self._unjudged_by_reason().items()]
        return "\n".join(lines)


def _counted(findings: list[Finding], severity: Severity, name: str) -> str:
    count = sum(finding.severity == severity for finding in findings)
    return f"{count} {name}{'' if count == 1 else 's'}"


def _told(finding: Finding) -> list[str]:
    """A finding in a few lines."""
    where = [str(finding.evidence[name]) for name in ("attribute", "class", "file") if name in finding.evidence]
    return [
        f"{SEVERITIES[finding.severity]}: {finding.check}",
        f"  {finding.statement}",
        f"  where:  {', '.join(where)}",
        f"  do:     {finding.advice}",
        f"  source: {finding.source}",
    ]
