import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from synthetic_tokens import SMALL, write_codes, write_token_trace

from vqtool.diagnostics.recording.code_use import CodeUse, PositionUse
from vqtool.diagnostics.recording.trace import TokenTrace
from vqtool.diagnostics.run import RunDirectory
from vqtool.reports.page.style import NOTHING
from vqtool.reports.transformer import code_figures, position_figures, token_figures
from vqtool.reports.transformer.code_panels import code_panels, position_panels
from vqtool.reports.transformer.token_numbers import Bands, bands, by_frequency, nll_heat
from vqtool.reports.transformer.token_panels import token_panels

T = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> RunDirectory:
    made = RunDirectory(tmp_path_factory.mktemp("figures"))
    write_codes(made, SMALL)
    write_token_trace(made.trace / "tokens", SMALL, T)
    return made


@pytest.fixture
def use(run) -> CodeUse:
    return CodeUse.load(run.codes("test"))


@pytest.fixture
def where(run) -> PositionUse:
    return PositionUse.load(run.positions("test"))


@pytest.fixture
def trace(run) -> TokenTrace:
    return TokenTrace.load(run.trace / "tokens")


def points(axes, label: str) -> np.ndarray:
    """The points of all scatters with this label."""
    return np.concatenate([np.asarray(one.get_offsets()) for one in axes.collections if one.get_label() == label])


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes if (box := axes.get_legend()) for text in box.get_texts()]


def test_the_code_never_learned_lies_above_the_line_and_is_marked(use):
    (axes,) = code_figures.frequency_against_nll(use).axes
    ((x, y),) = points(axes, "never learned (n = 1)")
    assert x == pytest.approx(use.train[SMALL.unlearned] / use.train.sum())
    assert y > -np.log(x)
    learned = points(axes, f"learned (n = {use.judged.sum() - 1})")
    assert (learned[:, 1] < -np.log(learned[:, 0])).all()
    assert axes.get_xscale() == "log"


def test_the_line_is_minus_ln_p(use):
    (axes,) = code_figures.frequency_against_nll(use).axes
    line = next(line for line in axes.get_lines() if str(line.get_label()).startswith("by frequency alone"))
    x, y = np.asarray(line.get_xydata()).T
    np.testing.assert_allclose(y, -np.log(x))


def test_a_code_absent_from_training_that_the_split_has_stands_in_a_strip():
    counts = np.array([9, 3, 0, 0])
    use = CodeUse(counts, np.array([5, 2, 1, 0]), np.zeros(4, int), np.array([0.2, 1.0, 8.0, np.nan]))
    margin, axes = code_figures.frequency_against_nll(use).axes
    assert np.asarray(margin.collections[0].get_offsets())[:, 1].tolist() == [8.0]
    assert len(points(axes, "learned (n = 2)")) == 2
    assert "not in train (n = 1)" in legend(axes.figure)


def test_a_dead_code_that_is_sampled_stands_out_in_its_strip(use):
    figure = code_figures.data_against_sampled(use)
    left = figure.axes[0]
    crosses = [one for one in left.collections if len(one.get_offsets()) and one.get_sizes()[0] == 70]
    assert len(crosses) == 1
    ((_, share),) = np.asarray(crosses[0].get_offsets())
    assert share == pytest.approx(7 / use.sampled_tokens)
    assert "not in train, yet sampled (n = 1)" in legend(figure)


def test_every_code_of_data_and_samples_is_drawn_once(use):
    left, axes, _, below = code_figures.data_against_sampled(use).axes
    n = [sum(len(one.get_offsets()) for one in part.collections[skip:]) for part, skip in ((left, 0), (below, 0))]
    inside = sum(len(one.get_offsets()) for one in axes.collections[1:])
    assert n[0] == ((use.data == 0) & (use.sampled > 0)).sum()
    assert n[1] == ((use.data > 0) & (use.sampled == 0)).sum()
    assert inside == ((use.data > 0) & (use.sampled > 0)).sum()


def test_no_dead_code_sampled_is_no_entry_in_the_legend(use):
    sampled = np.where(use.absent, 0, use.sampled)
    figure = code_figures.data_against_sampled(CodeUse(use.train, use.data, sampled, use.nll))
    assert not any("not in train" in text for text in legend(figure))


def test_rows_of_the_nll_map_are_the_targets_by_frequency(trace, use):
    order = by_frequency(use.train, trace.targets)
    assert order[0] == use.train.argmax()
    assert set(order) == set(np.flatnonzero(trace.targets.sum(0)))
    assert (np.diff(use.train[order]) <= 0).all()


def test_the_nll_map_is_grey_exactly_where_no_code_was_a_target(trace, use):
    order = by_frequency(use.train, trace.targets)
    heat = nll_heat(trace, order, np.zeros(SMALL.K))
    axes = token_figures.nll_in_time(heat, heat).axes[0]
    mesh = next(one for one in axes.collections if isinstance(one, QuadMesh))
    colours = mesh.to_rgba(mesh.get_array()).reshape(len(order), T, 4)
    grey = np.isclose(colours, to_rgba(NOTHING)).all(-1)
    np.testing.assert_array_equal(grey, trace.targets[:, order].T == 0)


def test_a_cell_of_the_nll_map_is_the_mean_over_its_targets(trace, use):
    order = by_frequency(use.train, trace.targets)
    less = np.arange(SMALL.K, dtype=float)
    heat = nll_heat(trace, order, less, rows=7, columns=5)
    assert trace.nll is not None
    starts = range(0, T, heat.records)
    for row, (top, bottom) in enumerate(zip(heat.codes[:-1], heat.codes[1:], strict=True)):
        for column, start in enumerate(starts):
            cell = np.ix_(range(start, min(T, start + heat.records)), order[top:bottom])
            n, values = trace.targets[cell], np.nan_to_num(trace.nll[cell]) - less[order[top:bottom]]
            expected = (n * values).sum() / n.sum() if n.sum() else np.nan
            np.testing.assert_allclose(heat.values[row, column], expected, rtol=1e-4, atol=1e-5)


def test_the_code_never_learned_is_the_one_that_stays_red(trace, use):
    order = by_frequency(use.train, trace.targets)
    frequent = order[:10]
    heat = nll_heat(trace, frequent, use.frequency_nll)
    assert np.flatnonzero(heat.values[:, -1] > 0).tolist() == frequent.tolist().index(SMALL.unlearned) * np.ones(1)


def test_norms_in_time_part_codes_with_targets_from_those_without(trace):
    known = trace.targets.sum(0) > 0
    assert trace.embedding_grad_norm is not None
    both = bands(trace.embedding_grad_norm, known, np.arange(T))
    figure = token_figures.rows_in_time(trace.steps, {"a": both, "b": both})
    assert [str(line.get_label()) for line in figure.axes[0].get_lines()] == ["with targets", "never a target"]
    assert [text.get_text() for text in figure.axes[0].texts] == ["never a target: exactly zero"]
    assert (both.targets[1] > 0).all()


def test_without_codes_of_a_kind_their_band_is_left_out():
    nothing = np.full((3, 4), np.nan)
    known = Bands(np.ones((3, 4)), nothing)
    axes = token_figures.rows_in_time(np.arange(4), {"a": known, "b": known}).axes[0]
    assert [str(line.get_label()) for line in axes.get_lines()] == ["with targets"]


def test_codes_that_training_lacks_stand_in_a_strip_beside_their_norms():
    share, norm = np.array([0.5, 0.5, 0.0]), np.array([1.0, 2.0, 3.0])
    margin, axes, *_ = token_figures.rows_against_frequency(share, {"a": norm, "b": norm}).axes
    assert np.asarray(margin.collections[0].get_offsets())[:, 1].tolist() == [3.0]
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[0.5, 1.0], [0.5, 2.0]]


def test_data_and_samples_share_one_scale_of_perplexity(where):
    data, samples, nll = position_figures.position_maps(where).axes[:3]
    assert data.get_images()[0].norm is samples.get_images()[0].norm
    np.testing.assert_allclose(np.asarray(data.get_images()[0].get_array()), where.perplexity(where.data))
    np.testing.assert_allclose(np.asarray(nll.get_images()[0].get_array()), where.mean_nll())


def test_a_pair_shows_where_a_code_is_in_the_data_and_where_in_the_samples(where):
    shares = {"data": np.full(SMALL.K, 0.25), "samples": np.full(SMALL.K, 0.125)}
    figure = position_figures.pairs(where, [SMALL.top, SMALL.gap], shares)
    data, samples, other = figure.axes[:3]
    assert data.get_title(loc="left") == f"code {SMALL.top}\ndata 25.00%"
    assert samples.get_title(loc="left").strip() == "samples 12.50%"
    assert data.get_images()[0].norm is samples.get_images()[0].norm
    assert data.get_images()[0].norm is not other.get_images()[0].norm
    values = np.asarray(data.get_images()[0].get_array())
    assert values[0].min() > values[1:].max() == 0
    assert np.asarray(samples.get_images()[0].get_array())[1:].max() > 0


def test_captions_count_what_the_figures_show(use, where):
    nll, sampled = (panel.caption for panel in code_panels("test", use))
    assert f"never learned, 1 of {use.judged.sum()} " in nll
    assert "Dead in the first stage: 24 of 64 codes do not occur in training, none of them" in nll
    assert "of which sampled: 1 (crosses); it should be none" in sampled
    maps, frequent, gap = (panel.caption for panel in position_panels("test", use, where))
    assert "4 × 6 positions, over 300 images of the test split and 200 samples" in maps
    assert "The 8 most frequent codes" in frequent
    assert f"of the total variation of {use.gap.sum():.3f}" in gap


def test_a_never_learned_code_on_few_tokens_is_said_to_be_uncertain():
    use = CodeUse(np.array([90, 10]), np.array([50, 3]), np.zeros(2, int), np.array([0.01, 9.0]))
    (panel,) = code_panels("test", use)
    assert "never learned, 1 of 2 (triangles; 1 of them on fewer than 10 tokens" in panel.caption


def test_without_samples_only_the_data_are_drawn(use, where):
    none = np.zeros_like(where.sampled)
    bare = PositionUse(where.grid, where.place, where.code, where.data, none, where.nll)
    unsampled = CodeUse(use.train, use.data, np.zeros_like(use.sampled), use.nll)
    names = [panel.name for panel in (*code_panels("test", unsampled), *position_panels("test", unsampled, bare))]
    assert names == ["test-frequency-against-nll", "test-position-maps", "test-positions-frequent"]


def test_a_trace_without_any_evaluation_orders_codes_by_what_it_saw(run, trace):
    panels = {panel.name: panel.caption for panel in token_panels(run.trace / "tokens", None)}
    assert "targets that the trace saw" in panels["tokens-rows-against-frequency"]
    seen = int((trace.targets.sum(0) > 0).sum())
    assert f"never were a target have no row: {64 - seen} of 64." in panels["tokens-nll-in-time"]


def test_the_learning_curve_draws_what_was_logged_and_no_more():
    rows = [{"step": i, "loss/nll": 5.0 - i} for i in range(3)]
    assert len(token_figures.learning(rows, None).axes) == 1
    look = {"validation/nll": 4.0, "validation/top1": 0.25, "optimizer/lr": 1e-3}
    more = [*rows, {"step": 1, **look}, {"step": 2, **look}]
    nll, top, _ = token_figures.learning(more, 4.5).axes
    assert "by frequency alone: 4.50" in [str(line.get_label()) for line in nll.get_lines()]
    assert np.asarray(top.get_lines()[0].get_xydata()).tolist() == [[1, 25.0], [2, 25.0]]


def test_a_figure_that_was_logged_once_has_no_axes_of_its_own():
    rows = [{"step": i, "loss/nll": 5.0 - i} for i in range(3)]
    look = {"step": 2, "validation/nll": 4.0, "validation/top1": 0.25}
    (nll,) = token_figures.learning([*rows, look], None).axes
    assert "validation" in [str(line.get_label()) for line in nll.get_lines()]
