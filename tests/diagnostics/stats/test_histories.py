"""Life histories against planted schedules, and against a slow twin that reads the definitions code by code."""

import numpy as np
import pytest
from life_histories import durations, histories, in_use

from vqtool.diagnostics import InputError, stats

ALL = [name for name in stats.BEGAN if name != "before"]


def told(lives):
    """Lives as a list of rows with their names."""
    rows = zip(*(column.tolist() for column in lives), strict=True)
    return [
        (code, life, stats.BEGAN[began], start, end, stats.ENDED[ended], n)
        for code, life, began, start, end, ended, n in rows
    ]


def events(found):
    return [tuple(row) for row in found.events().itertuples(index=False)]


def trace_of(hits, resets=None, window=10, begun=0):
    """Steps, windows, hits (T, K), resets of equal windows; code 0 is added, whose hits make every window a verdict."""
    hits = np.asarray(hits, np.int64)
    resets = np.zeros(hits.shape) if resets is None else np.asarray(resets, float)
    always = np.full((len(hits), 1), 8 * (hits.shape[1] + 1))
    steps = begun + window * np.arange(1, len(hits) + 1)
    return steps, np.full(len(hits), window), np.hstack([always, hits]), np.hstack([0 * always, resets])


def lives_of(hits, resets=None, **options):
    """The lives of a single code that is given by its hits and resets in each window, without its number."""
    columns = [None if column is None else np.array(column)[:, None] for column in (hits, resets)]
    return [life[2:6] for life in told(stats.life_histories(*trace_of(*columns, **options)).lives) if life[0] == 1]


def test_a_life_lasts_from_the_window_of_its_first_hit_to_the_end_of_that_of_its_last():
    assert lives_of([0, 3, 1, 0, 0]) == [("born", 10, 30, "silence")]


def test_a_code_that_comes_back_after_its_death_is_revived_and_lives_another_life():
    assert lives_of([1, 0, 2, 2]) == [("born", 0, 10, "silence"), ("revived", 20, 40, "censored")]


def test_a_code_without_a_hit_was_never_born_and_one_that_is_hit_at_the_end_is_not_dead():
    assert lives_of([0, 0, 0]) == []
    assert lives_of([0, 0, 1]) == [("born", 20, 30, "censored")]


def test_a_reset_begins_a_life_at_the_end_of_its_window():
    revived = lives_of([1, 0, 0, 1, 1, 0], [0, 0, 1, 0, 0, 0])
    assert revived == [("born", 0, 10, "silence"), ("reset", 30, 50, "silence")]


def test_a_reset_that_is_overwritten_at_the_next_step_is_a_life_of_no_steps():
    assert lives_of([1, 0, 0, 0, 0], [0, 0, 1, 0, 0])[1:] == [("reset", 30, 30, "silence")]


def test_a_reset_of_a_code_that_was_never_born_begins_its_first_life():
    assert lives_of([0, 1, 1], [1, 0, 0]) == [("reset", 10, 30, "censored")]


def test_a_hit_that_comes_when_a_reset_code_counts_as_dead_again_is_no_success_of_the_reset():
    assert lives_of([0, 0, 1], [1, 0, 0]) == [("reset", 10, 10, "silence"), ("revived", 20, 30, "censored")]


def test_hits_in_the_window_of_a_reset_are_those_of_the_individual_before():
    assert lives_of([1, 1, 0, 0], [0, 1, 0, 0]) == [("born", 0, 20, "reset"), ("reset", 20, 20, "silence")]
    assert lives_of([0, 1, 1, 1], [0, 1, 0, 0]) == [("born", 10, 20, "reset"), ("reset", 20, 40, "censored")]


def test_of_several_resets_in_a_window_all_but_the_last_are_lives_of_no_steps():
    found = stats.life_histories(*trace_of([[0], [1], [1]], [[3], [0], [0]]))
    assert told(found.lives)[1:] == [
        (1, 1, "reset", 10, 10, "reset", 2),
        (1, 3, "reset", 10, 30, "censored", 1),
    ]
    assert events(found)[1:4] == [(10, 1, "reset", 1, 0, 2), (10, 1, "replacement", 1, 0, 2), (10, 1, "reset", 3, 0, 1)]
    assert sorted(found.durations("reset").age) == [0, 0, 10]


def test_a_reset_before_the_silence_was_long_enough_is_a_replacement_and_no_death():
    # 4 tokens per code in every window: two windows without a hit are a death, one is not
    hits = np.array([[4, 4], [8, 0], [8, 0], [8, 0], [8, 0]])
    for at, end in ((1, "reset"), (2, "silence")):
        resets = np.zeros((5, 2))
        resets[at, 1] = 1
        rows = told(stats.life_histories(np.arange(1, 6), np.ones(5, int), hits, resets).lives)
        assert rows[1:] == [(1, 1, "born", 0, 1, end, 1), (1, 2, "reset", at + 1, at + 1, "silence", 1)]


@pytest.mark.parametrize(("gap", "lives"), [(1, 1), (2, 1), (3, 2)])
def test_a_code_is_dead_from_eight_tokens_per_code_on_and_not_before(gap, lives):
    hits = np.array([[5, 1], *[[6, 0]] * gap, [5, 1]])  # 16 tokens: three windows of 6
    rows = told(stats.life_histories(range(1, gap + 3), [1] * (gap + 2), hits, 0 * hits).lives)
    assert sum(code == 1 for code, *_ in rows) == lives


@pytest.mark.parametrize(("after", "ended"), [(2, "censored"), (3, "silence")])
def test_a_code_whose_silence_is_too_short_at_the_end_is_censored_and_not_dead(after, ended):
    hits = np.array([[5, 1], *[[6, 0]] * after])
    found = stats.life_histories(range(1, after + 2), [1] * (after + 1), hits, 0 * hits)
    assert told(found.lives)[1] == (1, 1, "born", 0, 1, ended, 1)
    assert found.horizon == (1 if ended == "silence" else None)


def test_where_a_code_may_have_been_reset_how_it_came_back_is_unknown_and_no_reset_is_counted():
    nan = np.nan
    back = lives_of([1, 0, 0, 1], [0, 0, nan, 0])
    assert back == [("born", 0, 10, "silence"), ("unknown", 30, 40, "censored")]
    assert lives_of([1, 0, 0, 1], [0, 0, 0, nan]) == back  # it may have jumped before its hit in that window
    assert lives_of([1, 0, 0, 1], [nan, 0, 0, 0]) == back  # or after its last one in this
    assert lives_of([1, 0, 1, 0, 1], [nan, 0, 0, 0, 0])[2][0] == "revived"  # but before that life it matters no more
    assert lives_of([1, 1, 1], [0, nan, 0]) == [("born", 0, 30, "censored")]
    assert lives_of([0, 1], [nan, 0]) == [("unknown", 10, 20, "censored")]
    assert stats.life_histories(*trace_of([[0], [1]], [[nan], [nan]])).unknown_resets == 2


def test_codes_that_live_as_a_trace_begins_late_were_born_before_it():
    assert lives_of([1, 1, 0, 1], begun=500) == [("before", 500, 520, "silence"), ("revived", 530, 540, "censored")]
    assert lives_of([0, 1, 0], begun=500) == [("unknown", 510, 520, "silence")]
    hits = np.array([[6, 0], [6, 0], [5, 1], [6, 0]])  # 12 tokens without a hit: too few to call it dead at first
    found = stats.life_histories(range(101, 105), [1] * 4, hits, 0 * hits)
    assert told(found.lives)[1] == (1, 1, "before", 100, 103, "censored", 1)
    assert (found.first, found.last) == (100, 104)


def test_the_age_of_a_life_that_began_before_the_trace_is_not_known():
    found = stats.life_histories(*trace_of([[1], [0], [0]], begun=500))
    assert not len(found.durations().age)
    assert found.followed.tolist() == [False, False]
    assert [row[2] for row in events(found)] == ["death"]
    with pytest.raises(InputError, match="beginning of a life 'before' is unknown"):
        found.durations("before")


def test_one_record_tells_who_was_born_and_of_no_death():
    found = stats.life_histories([10], [10], [[3, 0, 40]], [[0, 0, 2]])
    assert told(found.lives) == [
        (0, 1, "born", 0, 10, "censored", 1),
        (2, 1, "born", 0, 10, "reset", 1),
        (2, 2, "reset", 10, 10, "reset", 1),
        (2, 3, "reset", 10, 10, "censored", 1),
    ]
    assert found.horizon is None
    assert not len(found.durations().age)
    np.testing.assert_array_equal(found.since_hit, [0, np.nan, 0])


def test_a_life_is_followed_to_the_horizon_and_no_further():
    """Of the last records deaths are not seen yet: what they show of survivors is left out too."""
    hits = np.array([[4, 4, 4]] * 4 + [[6, 0, 6]] + [[12, 0, 0]] * 2)  # 12 tokens a window, a verdict takes 24
    found = stats.life_histories(np.arange(1, 8) * 10, [10] * 7, hits, 0 * hits)
    assert found.horizon == 50
    assert [row[5] for row in told(found.lives)] == ["censored", "silence", "silence"]
    followed = found.durations("born")
    assert sorted(zip(followed.age.tolist(), followed.ended.tolist(), strict=True)) == [
        (40, True),
        (50, False),
        (50, True),
    ]


def test_steps_since_the_last_hit_are_counted_to_the_end_of_the_trace():
    found = stats.life_histories(*trace_of([[1, 0, 0], [0, 0, 0], [0, 0, 1]]))
    np.testing.assert_array_equal(found.since_hit, [0, 20, np.nan, 0])


def planted(rng, K, T):
    """A random schedule of births, deaths, revivals and resets of K codes over T windows of 10 steps.

    Returns:
        Hits and resets (T, K), and the lives (code, life, began, start, end, ended, 1) that were planted.
    """
    hits, resets, plan = np.zeros((T, K), int), np.zeros((T, K), int), []
    for code in range(K):
        t, life = rng.integers(0, 4), 0
        while t < T:
            life += 1
            # A life has hits in windows a to b - 1. That of a reset may have none; any other has one at least.
            by_reset = rng.random() < 0.5
            resets[t, code] += by_reset
            a, b = t + by_reset, min(t + 1 + rng.integers(0, 5), T)
            hits[a:b, code] = rng.integers(1, 4, max(0, b - a))
            replaced = b < T and b > a and rng.random() < 0.3  # by a reset in the window of its last hit
            began = "reset" if by_reset else "revived" if life > 1 else "born"
            # Silent at the end: every window of these traces is long enough for a verdict, the last one too.
            ended = "censored" if b == T and (b > a or t == T - 1) else "reset" if replaced else "silence"
            plan.append((code, life, began, 10 * (t + by_reset), 10 * b if b > a else 10 * (t + 1), ended, 1))
            if replaced:
                resets[b - 1, code] += 1
                life += 1
                c = min(b + rng.integers(0, 3), T)
                hits[b:c, code] = 1
                plan.append((code, life, "reset", 10 * b, 10 * c, "censored" if c == T else "silence", 1))
                b = c
            t = b + rng.integers(1, 4)
    return hits, resets, plan


@pytest.mark.parametrize("seed", range(20))
def test_a_planted_schedule_comes_back_exactly(seed):
    hits, resets, plan = planted(np.random.default_rng(seed), K=12, T=25)
    steps, window, all_hits, all_resets = trace_of(hits, resets)
    found = [(code - 1, *life) for code, *life in told(stats.life_histories(steps, window, all_hits, all_resets).lives)]
    assert [life for life in found if life[0] >= 0] == plan
    assert len(plan) > 30


def wild(seed):
    """A trace in which anything happens: rare codes, empty windows, storms of resets, unknown ones, uneven windows."""
    rng = np.random.default_rng(seed)
    T, K = rng.integers(1, 30), rng.integers(1, 9)
    window = rng.integers(1, 12, T)
    steps = rng.choice([0, 0, 77]) + window.cumsum()
    rate = rng.lognormal(-1, 2, K) * (rng.random((T, K)) < rng.random()) * (rng.random((T, 1)) < 0.9)
    resets = rng.poisson(0.2 * rng.random(), (T, K)).astype(float)
    resets[rng.random((T, K)) < 0.1 * rng.integers(0, 2)] = np.nan
    return steps, window, rng.poisson(rate), resets


@pytest.mark.parametrize("seed", range(60))
def test_any_trace_has_the_lives_that_the_definitions_say_code_by_code(seed):
    trace, per_code = wild(seed), [8, 2.5, 0.5][seed % 3]
    found = stats.life_histories(*trace, tokens_per_code=per_code)
    rows, horizon = histories(*(column.tolist() for column in trace), per_code)
    assert told(found.lives) == rows
    assert found.horizon == horizon
    for kinds in (ALL, *([kind] for kind in ALL)):
        followed = found.durations(*kinds)
        assert sorted(zip(followed.age.tolist(), followed.ended.tolist(), strict=True)) == durations(
            rows, horizon, kinds
        )


@pytest.mark.parametrize("seed", range(60))
def test_a_code_is_in_use_after_some_steps_as_the_lives_of_its_individual_say(seed):
    trace = wild(seed)
    found = stats.life_histories(*trace, tokens_per_code=1)
    rows, horizon = histories(*(column.tolist() for column in trace), 1)
    for kind in ALL:
        for after in (0, 7, 30, 100):
            assert sorted(found.in_use(after, kind).tolist()) == in_use(rows, horizon, kind, after)


def test_a_code_that_died_and_came_back_by_itself_is_in_use_and_one_that_was_reset_again_is_another():
    hits = np.array([[0, 1, 0, 1, 1], [0, 1, 0, 1, 1], [0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]).T
    resets = np.array([[1, 0, 0, 0, 0], [1, 0, 1, 0, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).T
    late = stats.life_histories(*trace_of(hits, resets, begun=10**9))
    assert late.in_use(25, "reset").tolist() == [True, False, True, False]
    found = stats.life_histories(*trace_of(hits, resets))
    assert found.in_use(25, "reset").tolist() == [True, False, True, False]  # the second reset of code 2 is too young
    assert found.durations("reset").ended.tolist() == [True, True, False, False, True]


def test_traces_of_the_twin_know_every_beginning_and_every_end():
    rows = [row for seed in range(60) for row in histories(*(column.tolist() for column in wild(seed)), 2)[0]]
    assert {row[2] for row in rows} == {*stats.BEGAN}
    assert {row[5] for row in rows} == {*stats.ENDED}


@pytest.mark.parametrize("seed", range(10))
def test_a_run_that_goes_on_has_the_histories_of_its_records_so_far(seed):
    steps, window, hits, resets = wild(seed)
    fold = stats.LifeFold(hits.shape[1])
    for t, record in enumerate(zip(steps, window, hits, resets, strict=True), 1):
        fold.add(*record)
        assert told(fold.histories().lives) == told(
            stats.life_histories(steps[:t], window[:t], hits[:t], resets[:t]).lives
        )


def test_events_are_the_beginnings_and_ends_of_lives_in_time():
    found = stats.life_histories(*trace_of([[1, 0], [0, 1], [1, 1], [0, 1]], [[0, 0], [0, 0], [0, 1], [0, 0]]))
    assert events(found) == [
        (0, 0, "birth", 1, 0, 1),
        (0, 1, "birth", 1, 0, 1),
        (10, 1, "death", 1, 10, 1),
        (10, 2, "birth", 1, 0, 1),
        (20, 1, "revival", 2, 0, 1),
        (30, 1, "death", 2, 10, 1),
        (30, 2, "replacement", 1, 20, 1),
        (30, 2, "reset", 2, 0, 1),
    ]


@pytest.mark.parametrize("seed", range(10))
def test_every_life_has_its_two_events_but_those_that_were_not_seen(seed):
    found = stats.life_histories(*wild(seed))
    lives, happened = found.frame(), found.events()
    ends = happened["event"].isin(["death", "replacement"])
    assert ends.sum() == (lives["ended"] != "censored").sum()
    assert (~ends).sum() == (lives["began"] != "before").sum()
    assert happened["step"].is_monotonic_increasing
    joined = happened[ends].merge(lives, on=["code", "life"])
    assert (joined["age"] == joined["steps"]).all()
    assert (joined["step"] == joined["end"]).all()


def test_what_does_not_fit_together_is_refused_in_one_line():
    with pytest.raises(InputError, match=r"not \(2,\), \(2,\), \(2, 3\), \(1, 3\)$"):
        stats.life_histories([1, 2], [1, 1], np.ones((2, 3)), np.ones((1, 3)))
    with pytest.raises(InputError, match="T at least 1"):
        stats.life_histories([], [], np.ones((0, 3)), np.ones((0, 3)))
    with pytest.raises(InputError, match="in the order of their steps: 1 comes after 2"):
        stats.life_histories([2, 1], [1, 1], np.ones((2, 3)), np.ones((2, 3)))
    with pytest.raises(InputError, match=r"a record of 4 codes has hits \(3,\)"):
        stats.LifeFold(4).add(1, 1, [1, 2, 3], [0, 0, 0])
    with pytest.raises(InputError, match="at least one record"):
        stats.LifeFold(4).histories()
