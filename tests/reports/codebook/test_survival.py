"""The lives of codes as the page of a run shows them."""

import numpy as np
import pandas as pd
import pytest

from vqtool.diagnostics import stats
from vqtool.diagnostics.recording.trace import CodebookTrace
from vqtool.reports.codebook import survival, survival_figures
from vqtool.reports.page.sections import Section


def planted(lives, T=30, K=4, window=10):
    """A trace of K codes: code 0 makes every window a verdict, the others have hits and resets as they are told.

    ``lives`` has, by code, the windows with hits and the windows with a reset.
    """
    hits, resets = np.zeros((T, K), np.int64), np.zeros((T, K), np.float32)
    hits[:, 0] = 8 * K
    for code, (with_hits, with_resets) in lives.items():
        hits[[*with_hits], code] = 1
        resets[[*with_resets], code] = 1
    arrays = {"hits": hits, "resets": resets}
    return CodebookTrace("quantize", window * np.arange(1, T + 1), np.full(T, window), arrays)


#: Code 1 dies and is reset in vain; code 2 is reset and lives on; code 3 is reset, dies after 40 steps and comes back.
LIVES = {1: (range(5), [9]), 2: (range(10, 30), [9]), 3: ([10, 11, 12, 13, *range(21, 30)], [9])}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    section, folder = Section("Codebook"), tmp_path_factory.mktemp("report")
    survival.add_life_histories(section, planted(LIVES), folder)
    return section, folder


def histories_of(trace):
    return stats.life_histories(trace.steps, trace.window, trace.hits, trace.resets)


def test_the_section_says_what_happened_and_draws_it(shown):
    section, _ = shown
    assert section.text == [
        "Life histories up to step 290, the last that is followed by the 8 tokens per code that a verdict of death"
        " takes, known to a window of 10 steps. Births: 2, revivals by themselves: 1, resets: 3, deaths: 3. 0 of 4"
        " codes never had a hit."
    ]
    names = ["quantize-survival", "quantize-hazard", "quantize-generations"]
    assert [picture.name for picture in section.pictures] == names


def test_the_table_tells_what_became_of_lives_by_how_they_began(shown):
    section, folder = shown
    (table,) = section.tables
    told = pd.DataFrame(table.rows, columns=table.heads).set_index("Lives that began")
    assert list(told.columns) == ["Born", "Came back by itself", "Reset"]
    assert told["Reset"].iloc[:6].tolist() == ["3", "1", "2", "1", "0", "1"]
    assert told.loc["go on after 100 steps", "Reset"] == "33.3% (0.9 to 77.4%) [0]"
    assert told.loc["in use after 100 steps", "Reset"].startswith("33.3%")  # the third is not back yet
    assert told.loc["go on after 500 steps", "Reset"] == "– [1]"
    numbers = pd.read_csv(folder / "tables" / "quantize-lives.csv", index_col="began")
    assert numbers.loc["reset", ["lives", "without_a_hit", "silent", "came_back", "replaced", "went_on"]].tolist() == [
        *(3, 1, 2, 1, 0, 1)
    ]
    assert numbers.loc["reset", "unbroken_100"] == pytest.approx(1 / 3)
    assert np.isnan(numbers.loc["reset", "unbroken_1000"])
    assert numbers.loc["reset", "in_use_500_censored"] == 3


def test_resets_that_are_overwritten_at_once_read_a_success_of_zero(tmp_path):
    section, trace = Section("Codebook"), planted({})
    trace.arrays["resets"][3:, 1:] = 1  # at every record again
    survival.add_life_histories(section, trace, tmp_path)
    told = pd.DataFrame(section.tables[0].rows, columns=section.tables[0].heads).set_index("Lives that began")
    lives = 3 * (29 - 3)
    assert told["Reset"].iloc[:2].tolist() == [str(lives)] * 2
    for after in ("100", "500", "1,000"):
        assert told.loc[f"go on after {after} steps", "Reset"].startswith("0.0% (0.0 to ")
    _, fates = survival.generations(histories_of(trace), trace.steps)
    assert fates["came to nothing"].sum() == lives


def test_where_no_life_ended_there_is_one_sentence_and_no_figure(tmp_path):
    section = Section("Codebook")
    survival.add_life_histories(section, planted({1: (range(30), [])}), tmp_path)
    assert "Births: 2. 2 of 4 codes never had a hit." in section.text[0]
    assert not section.pictures + section.tables


def test_a_trace_too_short_for_a_verdict_says_so(tmp_path):
    section, trace = Section("Codebook"), planted({})
    trace.arrays["hits"][:] = np.eye(30, 4, dtype=np.int64)
    survival.add_life_histories(section, trace, tmp_path)
    assert section.text == [
        "Which codes died cannot be told: no record is followed by the 8 tokens per code that a verdict takes."
    ]


def test_a_single_record_has_no_lives_to_tell_of(tmp_path):
    section = Section("Codebook")
    survival.add_life_histories(section, planted({}, T=1), tmp_path)
    assert section == Section("Codebook")


def test_what_cannot_be_known_is_counted_apart():
    trace = planted({1: ([2, 9], []), 2: ([3], [])})
    trace.arrays["resets"][6, 1] = np.nan
    told = survival.told(histories_of(trace), "window of 10 steps")
    assert "beginnings, by themselves or by resets that were not seen: 1" in told
    late = CodebookTrace("quantize", trace.steps + 500, trace.window, trace.arrays)
    assert "lives from before the trace: 1" in survival.told(histories_of(late), "")


def test_every_reset_stands_in_the_bar_of_its_steps_with_what_became_of_it():
    trace = planted(LIVES)
    edges, fates = survival.generations(histories_of(trace), trace.steps)
    assert edges.tolist() == [*range(0, 290, 20), 290]  # 29 records of 10 steps, two and two
    (generation,) = np.flatnonzero(sum(fates.values()))
    assert edges[generation] < 100 <= edges[generation + 1]
    assert {name: number[generation] for name, number in fates.items()} == {
        "came to nothing": 1,
        "first died within 100 steps": 0,
        "first died later": 0,
        "in use, after a break": 1,
        "in use at step 290": 1,
    }


def test_codes_that_live_on_without_a_break_stand_apart_from_those_that_came_back():
    trace = planted({1: LIVES[2], 2: LIVES[2], 3: LIVES[3]})
    _, fates = survival.generations(histories_of(trace), trace.steps)
    assert (fates["in use at step 290"].sum(), fates["in use, after a break"].sum()) == (2, 1)


def test_a_reset_whose_code_died_for_good_stands_by_the_length_of_its_life():
    lives = {1: (range(2, 5), [1]), 2: (range(2, 20), [1])}
    _, fates = survival.generations(histories_of(planted(lives)), planted(lives).steps)
    assert (fates["first died within 100 steps"].sum(), fates["first died later"].sum()) == (1, 1)


def test_curves_begin_at_one_and_have_their_numbers_at_risk_beneath():
    durations = stats.Durations(np.array([0, 50, 50, 100]), np.array([True, True, False, True]))
    axes, below = survival_figures.survival_curves({"reset": stats.survival(durations)}).axes
    points = np.asarray(axes.get_lines()[0].get_xydata())
    np.testing.assert_allclose(points, [[0, 1], [0, 0.75], [50, 0.5], [100, 0]])
    assert axes.get_lines()[0].get_drawstyle() == "steps-post"
    numbers = {text.get_position()[0]: text.get_text() for text in below.texts}
    assert (numbers[0], numbers[40], numbers[60], numbers[100]) == ("4", "3", "1", "1")


def test_a_bin_in_which_no_life_ended_is_drawn_by_what_is_still_possible():
    durations = stats.Durations(np.array([5, 300, 300]), np.array([True, False, False]))
    found = stats.hazard(durations, [0, 10, 100])
    axes, below = survival_figures.hazards({"born": found}).axes
    triangles = [line for line in axes.get_lines() if line.get_marker() == "v"]
    np.testing.assert_allclose(triangles[0].get_xydata(), [[1.5, found.high[1]]])
    assert [text.get_text() for text in below.texts] == ["3", "2"]
