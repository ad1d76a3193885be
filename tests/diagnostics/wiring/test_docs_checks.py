"""docs/checks.md says what the checks say."""

import runpy
from pathlib import Path

import vqtool

DOCS = Path(str(vqtool.__file__)).parent / "docs"


def test_the_page_is_what_the_checks_say():
    text = (DOCS / "checks.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(DOCS / "checks.py"))["page"](text) == text
