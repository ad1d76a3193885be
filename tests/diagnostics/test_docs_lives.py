"""The script beside docs/lives.md runs, and prints what the page says that it prints."""

import ast
import re
import runpy
from pathlib import Path

import pytest
from quoted import assert_printed

import vqtool
from vqtool import diagnostics
from vqtool.diagnostics import read_life_histories, stats

DOCS = Path(str(vqtool.__file__)).parent / "docs"
SCRIPT = DOCS / "lives" / "revivals.py"
PAGE = (DOCS / "lives.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_script_prints_what_the_page_quotes_and_resets_that_are_overwritten_have_no_success(tmp_path, capsys):
    runpy.run_path(str(SCRIPT))["main"](str(tmp_path))
    (quoted,) = re.findall(r"```text\n\$ python docs/lives/revivals\.py[^\n]*\n(.*?)```", PAGE, re.S)
    assert_printed(capsys.readouterr().out.splitlines(), quoted.splitlines())
    overwritten = read_life_histories(tmp_path / "overwritten" / "trace" / "quantize").durations("reset")
    assert len(overwritten.age) > 10_000
    assert [at.share for at in stats.alive_after(overwritten)] == [0, 0, 0]


def test_the_script_is_short_and_the_page_names_only_what_is_there():
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 65
    assert "](lives/revivals.py)" in PAGE
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            assert all(hasattr(diagnostics, alias.name) for alias in node.names)
    named = set(re.findall(r"`stats\.(\w+)", PAGE))
    assert len(named) >= 6
    assert all(hasattr(stats, name) for name in named)
