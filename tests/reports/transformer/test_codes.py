import numpy as np
import pandas as pd
import pytest
from synthetic_tokens import SMALL, write_codes

from vqtool.diagnostics import stats
from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.recording.code_use import CodeUse, PositionUse
from vqtool.diagnostics.run import RunDirectory
from vqtool.diagnostics.stats.gap import chance_band
from vqtool.reports.transformer.code_tables import codes_for_people, largest_gaps, worst_learned


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    made = RunDirectory(tmp_path_factory.mktemp("codes"))
    write_codes(made, SMALL)
    return made


@pytest.fixture
def use(run) -> CodeUse:
    return CodeUse.load(run.codes("test"))


@pytest.fixture
def where(run) -> PositionUse:
    return PositionUse.load(run.positions("test"))


def test_a_code_predicted_as_by_its_frequency_is_never_learned(use):
    assert np.flatnonzero(use.never_learned).tolist() == [SMALL.unlearned]


def test_a_code_is_judged_only_where_training_and_split_have_it():
    use = CodeUse(
        np.array([5, 5, 0, 0]), np.array([2, 0, 2, 0]), np.zeros(4, int), np.array([9.0, np.nan, 9.0, np.nan])
    )
    assert use.judged.tolist() == [True, False, False, False]
    assert use.never_learned.tolist() == [True, False, False, False]
    assert use.absent.tolist() == [False, False, True, True]
    assert use.mean_nll == 9.0


def test_an_nll_of_exactly_minus_ln_p_is_not_learned():
    use = CodeUse(np.array([1, 1]), np.array([1, 1]), np.zeros(2, int), np.array([np.log(2), np.log(2) - 1e-9]))
    assert use.never_learned.tolist() == [True, False]


def test_what_every_code_adds_sums_to_the_total_variation(use):
    assert use.gap.sum() == pytest.approx(float(stats.total_variation(use.data, use.sampled)), rel=1e-12)


@pytest.mark.parametrize("rate", [0.5, 3.0, 40.0, 2000.0])
def test_chance_alone_stays_inside_its_band_19_times_of_20(rate):
    rng = np.random.default_rng(int(rate))
    data, sampled = rng.poisson(2 * rate, 20_000), rng.poisson(rate, 20_000)
    low, high = chance_band(data, 2000, 1000)
    outside = ((sampled < low) | (sampled > high)).mean()
    assert 0.005 < outside < 0.06


def test_a_code_sampled_five_times_too_often_lies_outside_chance(use):
    assert use.outside_chance[SMALL.gap]
    assert not use.outside_chance[(use.data == 0) & (use.sampled == 0)].any()


def test_the_perplexity_of_a_position_is_that_of_its_codes(where):
    data, sampled = SMALL.counts()
    np.testing.assert_allclose(where.perplexity(where.data).ravel(), stats.perplexity(data))
    np.testing.assert_allclose(where.perplexity(where.sampled).ravel(), stats.perplexity(sampled))
    assert where.grid == SMALL.grid


def test_the_nll_of_a_position_is_the_mean_over_its_tokens():
    counts, nll = np.array([3, 1, 2]), np.array([1.0, 5.0, 4.0])
    use = PositionUse((1, 2), np.array([0, 0, 1]), np.array([7, 8, 7]), counts, np.zeros(3, int), nll)
    assert use.mean_nll().tolist() == [[2.0, 4.0]]


def test_the_share_of_images_with_a_code_is_told_by_position(where):
    share = where.frequency(SMALL.top, where.data)
    data, _ = SMALL.counts()
    np.testing.assert_allclose(share.ravel(), data[:, SMALL.top] / SMALL.images)
    assert (share[1:] == 0).all()
    assert (share[0] > 0.3).all()
    assert where.images(where.data) == SMALL.images
    assert where.images(where.sampled) == SMALL.samples


def test_a_position_that_was_not_sampled_has_no_perplexity():
    use = PositionUse((1, 1), np.array([0]), np.array([3]), np.array([4]), np.array([0]), np.array([1.0]))
    assert np.isnan(use.perplexity(use.sampled)).all()
    assert use.perplexity(use.data).tolist() == [[1.0]]


def test_the_tables_lead_with_the_gap_and_the_code_never_learned(use):
    gaps, worst = largest_gaps(use), worst_learned(use)
    assert gaps["code"].iloc[0] == use.gap.argmax()
    assert SMALL.gap in gaps["code"].iloc[:2].tolist()
    assert gaps["total_variation"].is_monotonic_decreasing
    assert len(gaps) == len(worst) == 20
    assert worst["code"].iloc[0] == SMALL.unlearned
    assert (worst["excess"].iloc[1:] < 0).all()


def test_what_a_code_lacks_is_a_dash(use):
    dead = int(SMALL.dead[0])
    row = codes_for_people(largest_gaps(use, most=SMALL.K)).set_index("Code").loc[str(dead)]
    assert row["Share of train"] == "0.000%"
    assert row["Share of samples"] == f"{7 / use.sampled_tokens:.3%}"
    assert row[["NLL (nats)", "−ln p (nats)", "NLL + ln p"]].tolist() == ["–"] * 3


def test_counts_are_kept_and_read_again_exactly(tmp_path):
    rng = np.random.default_rng(0)
    data, sampled = (rng.poisson(0.7, (2, 3, 5)) for _ in range(2))
    data[1, 2, 4] = sampled[1, 2, 4] = 1  # the last position is one of those that occur
    nll = rng.random(data.shape) * data
    use, where = CodeUse.of(rng.poisson(9, 5), data, sampled, nll), PositionUse.of(data, sampled, nll)
    use.save(tmp_path / "codes.parquet")
    where.save(tmp_path / "positions.parquet")
    for made, again in (
        (use, CodeUse.load(tmp_path / "codes.parquet")),
        (where, PositionUse.load(tmp_path / "positions.parquet")),
    ):
        assert vars(made).keys() == vars(again).keys()
        for name, value in vars(made).items():
            np.testing.assert_array_equal(getattr(again, name), value, err_msg=name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codes.parquet", "positions.parquet"]
    np.testing.assert_allclose(use.mean_nll, nll.sum() / data.sum(), rtol=1e-6)
    np.testing.assert_allclose(where.mean_nll(), nll.sum(-1) / data.sum(-1), rtol=1e-6)


def test_a_code_that_training_never_had_cannot_be_one_that_was_not_learned():
    data = np.array([[[1, 1, 1]]])
    use = CodeUse.of(np.array([4, 0, 4]), data, np.zeros_like(data), np.array([[[0.1, 1e6, 5.0]]]))
    assert use.never_learned.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (pd.DataFrame({"code": [0]}), "it has no column train, data, sampled, nll"),
        (pd.DataFrame({"code": [1], "train": [1], "data": [1], "sampled": [1], "nll": [1.0]}), "one row per code"),
    ],
)
def test_a_file_that_holds_something_else_is_named(tmp_path, frame, message):
    frame.to_parquet(tmp_path / "codes-test.parquet")
    with pytest.raises(InputError, match=rf"cannot read .*codes-test\.parquet.*{message}"):
        CodeUse.load(tmp_path / "codes-test.parquet")
