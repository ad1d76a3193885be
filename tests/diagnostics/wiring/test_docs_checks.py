"""docs/checks.md says what the checks say."""

import re
import runpy
from pathlib import Path

from quoted import assert_printed

import vqtool
from vqtool.diagnostics import lint

DOCS = Path(str(vqtool.__file__)).parent / "docs"
SCRIPT = DOCS / "checks" / "swapped.py"


def test_the_page_is_what_the_checks_say():
    text = (DOCS / "checks.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(DOCS / "checks.py"))["page"](text) == text


def test_the_example_prints_what_the_page_quotes(monkeypatch, capsys):
    monkeypatch.chdir(DOCS.parent)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    page = (DOCS / "checks.md").read_text(encoding="utf-8")
    (quoted,) = re.findall(r"```text\n\$ python docs/checks/swapped\.py\n(.*?)```", page, re.DOTALL)
    assert_printed(capsys.readouterr().out.splitlines(), quoted.splitlines())


def test_with_the_first_slip_mended_the_second_is_named(tmp_path):
    text = SCRIPT.read_text(encoding="utf-8")
    early = re.search(r"        q = z \+ .*\n", text)
    mended = text.replace(early[0], "").replace("return q, loss", "return z + (q - z).detach(), loss")
    (tmp_path / "mended.py").write_text(mended)
    report = lint(*runpy.run_path(str(tmp_path / "mended.py"))["make"]())
    assert [finding.check for finding in report.findings] == ["commitment-side"]
