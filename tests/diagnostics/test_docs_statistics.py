"""The scripts beside docs/statistics.md print what the page says that they print."""

import re
import runpy
from pathlib import Path

import pytest

import vqtool

DOCS = Path(str(vqtool.__file__)).parent / "docs"
PAGE = (DOCS / "statistics.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")


def words_and_numbers(text):
    return NUMBER.sub("#", text).split(), [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def test_the_script_prints_what_the_page_quotes(capsys):
    (quoted,) = re.findall(r"```text\n\$ python docs/statistics/few_tokens\.py\n(.*?)```", PAGE, re.S)
    runpy.run_path(str(DOCS / "statistics" / "few_tokens.py"))
    words, numbers = words_and_numbers(capsys.readouterr().out)
    quoted_words, quoted_numbers = words_and_numbers(quoted)
    assert words == quoted_words
    assert numbers == pytest.approx(quoted_numbers, rel=0.05)  # other versions of NumPy may draw other tokens


def test_the_script_on_semantic_ids_prints_what_the_page_quotes(capsys, tmp_path):
    (quoted,) = re.findall(r"```text\n\$ python docs/statistics/semantic_ids\.py\n(.*?)```", PAGE, re.S)
    runpy.run_path(str(DOCS / "statistics" / "semantic_ids.py"))["main"](str(tmp_path))
    words, numbers = words_and_numbers(capsys.readouterr().out)
    quoted_words, quoted_numbers = words_and_numbers(quoted)
    assert words == quoted_words
    assert numbers == pytest.approx(quoted_numbers, rel=0.3, abs=3)  # other processors train another quantizer


def test_every_name_of_stats_on_the_page_exists():
    from vqtool.diagnostics import stats

    names = re.findall(r"stats\.(\w+)", PAGE.replace("statistics.md", ""))
    assert names
    assert all(hasattr(stats, name) for name in names)
