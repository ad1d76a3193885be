"""What a check asks, measures and advises, at length."""

from collections.abc import Iterator

from .check import Check
from .checks import CHECKS


def explained(check: Check) -> str:
    """All that there is to say of a check, in Markdown without a heading."""
    parts = {"It measures": check.measures, "It matters": check.matters, "What to do": check.advice}
    told = "\n\n".join(f"**{head}.** {text}" for head, text in parts.items())
    return f"{check.question}\n\n{told}\n\n**Source.** {check.source}"


def table() -> Iterator[tuple[str, str]]:
    """Each check with its question."""
    return ((name, check.question) for name, check in CHECKS.items())
