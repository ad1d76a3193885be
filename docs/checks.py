"""Writes checks.md from the checks themselves: ``python docs/checks.py``. A test holds the page to it."""

from pathlib import Path

from vqtool.diagnostics.wiring.checks import CHECKS
from vqtool.diagnostics.wiring.explain import explained, table

PAGE = Path(__file__).with_name("checks.md")
BEGIN, END = "<!-- checks -->", "<!-- /checks -->"


def checks() -> str:
    """The table of questions, and a section for each check."""
    rows = "\n".join(f"| [`{name}`](#{name}) | {question} |" for name, question in table())
    sections = "\n\n".join(f"### {name}\n\n{explained(check)}" for name, check in CHECKS.items())
    return f"| check | question |\n|---|---|\n{rows}\n\n{sections}"


def page(text: str) -> str:
    """The page with what stands between the marks written anew."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{checks()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
