"""docs/trace.md says what the code says, and its example reads what a run leaves."""

import os
import re
import runpy
import shutil
from pathlib import Path

import numpy as np
from synthetic import write_trace
from synthetic_stranger import write_stranger

import vqtool
from vqtool.diagnostics.recording.records import CodebookRecord, TokenRecord
from vqtool.diagnostics.recording.rows import TABLES

DOCS = Path(str(vqtool.__file__)).parent / "docs"
PAGE = (DOCS / "trace.md").read_text(encoding="utf-8")


def test_the_page_is_what_the_code_says():
    assert runpy.run_path(str(DOCS / "columns.py"))["filled"](PAGE) == PAGE


def test_every_column_on_disk_has_a_unit_and_a_meaning_on_the_page():
    for kind in (CodebookRecord, TokenRecord, *TABLES.values()):
        for name in kind.columns():
            assert re.search(rf"^\| `{name}` \| .+ \| .+ \|$", PAGE, re.MULTILINE), name


def test_the_example_reads_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.rmtree(write_stranger(Path("runs/mine")).trace)
    write_trace(Path("runs/mine/trace/quantizer"), np.eye(8, dtype=np.int64)[:3] + 1, window=20)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict = {}
    exec(example, names)
    assert names["codes_used"].to_dict() == {20: 8, 40: 8, 60: 8}
    assert names["boundary"]["ratio"].notna().all()
    assert len(example.strip().splitlines()) - 2 == 3  # an import, a blank line, three lines


def test_the_page_names_the_tables_that_a_run_has(tmp_path):
    write_stranger(tmp_path)
    assert {name for name in os.listdir(tmp_path) if f"  {name}/CODEBOOK" not in PAGE} == set()
