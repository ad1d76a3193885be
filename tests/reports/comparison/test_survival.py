"""The lives of codes of several runs, side by side."""

import numpy as np
import pandas as pd
import pytest
from synthetic import write_trace

from vqtool.diagnostics import read_life_histories, stats
from vqtool.diagnostics.recording.records import CodebookRecord
from vqtool.diagnostics.recording.trace import TraceWriter
from vqtool.reports.comparison import survival
from vqtool.reports.page.sections import Section

K, T = 8, 60


def write(folder, lives_on, resets=True, unknown=False):
    """A trace of 60 records of 5 steps. Every code but the first is reset in record 10; so many of them live on."""
    writer, nothing = TraceWriter(folder), np.full(K, np.nan, np.float32)
    for t in range(T):
        hits, reset = np.zeros(K, np.int64), np.zeros(K, np.float32)
        hits[0] = 8 * K
        hits[1 : 1 + lives_on * (t > 10)] = 1
        reset[1:] = resets and t == 10
        if unknown:
            reset[:] = np.nan
        columns = dict.fromkeys(CodebookRecord.columns(), nothing) | {"hits": hits, "resets": reset}
        writer.write(CodebookRecord("q", 5 * t + 5, 5, **columns))
    writer.flush()
    return folder


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("compared")
    traces = {
        "good": [(f"seed {seed}", write(tmp_path / f"good{seed}", 5 + seed)) for seed in (0, 1)],
        "vain": [("seed 0", write(tmp_path / "vain", 0))],
        "none": [("seed 0", write(tmp_path / "none", 3, resets=False))],
        "dark": [("dark", write(tmp_path / "dark", 3, unknown=True))],
    }
    section = Section("Codebook")
    survival.add_survival(section, "q", traces, tmp_path)
    return section, tmp_path


def test_the_success_of_revivals_is_pooled_over_runs_and_told_for_each(compared):
    section, folder = compared
    (table,) = section.tables
    rows = [dict(zip(table.heads, row, strict=True)) for row in table.rows]
    good = rows[0]
    assert (good["Remedy"], good["Runs"], good["Resets"], good["Steps after"]) == (
        "good",
        "seed 0, seed 1",
        "14",
        "100",
    )
    assert good["Without a hit"] == f"{3 / 14:.1%}"
    assert good["Go on"].startswith(f"{11 / 14:.1%} (")
    assert good["Go on, by run"] == good["In use, by run"] == f"{5 / 7:.1%}, {6 / 7:.1%}"
    frame = pd.read_csv(folder / "tables" / "q-revivals.csv")
    assert frame.loc[0, ["resets", "after", "unbroken", "in_use"]].tolist() == pytest.approx(
        [14, 100, 11 / 14, 11 / 14]
    )


def test_a_remedy_whose_resets_are_in_vain_has_a_success_of_zero_after_any_number_of_steps(compared):
    rows = [row for row in compared[0].tables[0].rows if row[0] == "vain"]
    assert [row[4] for row in rows] == ["100", "500", "1,000"]
    assert all(row[5].startswith("0.0% (0.0 to 41.0%)") for row in rows)


def test_a_reset_that_was_followed_for_no_step_is_not_one_without_a_hit(tmp_path):
    resets = stats.Durations(np.array([0, 0, 100, 100]), np.array([True, False, False, False]))
    one = survival.Lived("seed 0", {"reset": resets}, dict.fromkeys(stats.AFTER, np.ones(2, bool)), True)
    assert survival.success_table("q", {"ema+reset": [one]}, tmp_path).rows[0][3] == "25.0%"


def test_who_has_no_resets_and_who_cannot_know_is_said(compared):
    notes = compared[0].tables[0].notes
    assert notes[-2:] == ["Whether codes were reset cannot be known: dark.", "No resets: none."]
    assert {row[0] for row in compared[0].tables[0].rows} == {"good", "vain"}


def test_curves_are_drawn_by_how_lives_began_each_run_thin_and_all_of_a_name_thick(compared):
    lived = {
        name: [survival.lived("", compared[1] / one) for one in runs]
        for name, runs in {"good": ["good0", "good1"], "vain": ["vain"]}.items()
    }
    figure = survival.side_by_side({"reset": survival.by_kind(lived, "reset")}, ["good", "vain"])
    (axes,) = figure.axes
    labels = [str(line.get_label()) for line in axes.get_lines()]
    assert labels == ["_run", "_run", "good (14)", "vain (7)"]
    pooled = stats.pooled(read_life_histories(compared[1] / f"good{seed}").durations("reset") for seed in (0, 1))
    np.testing.assert_allclose(axes.get_lines()[2].get_ydata(), [1, *stats.survival(pooled).share])
    assert [picture.name for picture in compared[0].pictures] == ["q-survival-side-by-side"]
    assert "good: seed 0, seed 1; vain: seed 0" in compared[0].pictures[0].caption


def test_where_nothing_ended_there_is_one_sentence(tmp_path):
    section = Section("Codebook")
    write_trace(tmp_path / "q", np.full((6, 4), 50))
    survival.add_survival(section, "q", {"ema": [("seed 0", tmp_path / "q")]}, tmp_path)
    assert section.text == ["No life of a code is known to have ended: there are no survival curves."]
    assert not section.pictures + section.tables


def test_a_trace_that_cannot_be_read_leaves_the_others_to_be_compared(tmp_path, compared):
    section = Section("Codebook")
    traces = {"a": [("seed 0", tmp_path / "lost")], "vain": [("seed 0", compared[1] / "vain")]}
    survival.add_survival(section, "q", traces, tmp_path)
    assert section.missing == [f"No life histories of a, seed 0: no codebook trace in {tmp_path / 'lost'}."]
    assert len(section.pictures) == 1


def test_resets_that_were_not_followed_for_100_steps_have_a_sentence_and_no_empty_table(tmp_path):
    trace = write(tmp_path / "short", 5)
    for part in sorted(trace.glob("*.parquet"))[1:]:
        part.unlink()
    short = pd.read_parquet(trace)
    writer = TraceWriter(tmp_path / "cut")
    for step, rows in short[short.step <= 125].groupby("step"):
        columns = {name: rows[name].to_numpy() for name in CodebookRecord.columns()}
        writer.write(CodebookRecord("q", int(step), 5, **columns))
    writer.flush()
    section = Section("Codebook")
    survival.add_survival(section, "q", {"good": [("seed 0", tmp_path / "cut")]}, tmp_path)
    assert section.tables == []
    assert section.text == [
        "No reset was followed for 100 steps: of their success no more is known than the curves show."
    ]
