from dataclasses import replace

import numpy as np
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_rgba

from vqtool.diagnostics.recording.recent import recent
from vqtool.diagnostics.stats.lives import life_order
from vqtool.reports.codebook import curves, heatmaps, lives, populations
from vqtool.reports.page import logged, style


def lines(figure):
    """The labelled lines of a figure as (N, 2) points."""
    return {str(line.get_label()): np.asarray(line.get_xydata()) for axes in figure.axes for line in axes.get_lines()}


def mesh(axes):
    return next(artist for artist in axes.collections if isinstance(artist, QuadMesh))


def test_a_series_keeps_only_the_steps_at_which_a_number_was_logged():
    rows = [{"step": 3, "loss/l1": 0.5}, {"step": 1, "loss/l1": 0.9}, {"step": 2, "loss/l1": None}, {"loss/l1": 7.0}]
    assert logged.series(rows, "loss/l1").to_dict() == {1: 0.9, 3: 0.5}


def test_losses_have_one_pair_of_axes_per_group_that_was_logged():
    rows = [{"step": i, "loss/total": 1.0, "gan/generator": -0.5} for i in range(5)]
    labels = [axes.get_ylabel() for axes in curves.losses(rows).axes]
    assert labels == [curves.LOSS_GROUPS["loss/"], curves.LOSS_GROUPS["gan/"]]


def test_a_loss_below_zero_is_not_put_on_a_logarithmic_axis():
    rows = [{"step": i, "gan/generator": value} for i, value in enumerate([-0.5, 100.0])]
    assert curves.losses(rows).axes[0].get_yscale() == "linear"


def test_usage_names_its_window_and_draws_the_ceiling(trace):
    figure = curves.usage(lives.usage_in_time(trace), 6)
    assert "window of 5 steps" in figure.axes[0].get_title(loc="left")
    assert "window of 5 steps" in figure.axes[1].get_title(loc="left")
    drawn = lines(figure)
    assert drawn["codes used"][:, 1].tolist() == [5] * 5 + [4] * 3 + [3] * 2
    assert (drawn["ceiling: uniform use"][:, 1] < 6).all()


def test_validation_figures_say_over_what_codes_were_counted():
    names = ("validation/codes_used_split", "validation/perplexity_in_512_images", "validation/images")
    figure = curves.validation([{"step": i, **dict.fromkeys(names, 10 + i)} for i in range(3)])
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "codes used in the whole split (validation)",
        "perplexity in 512 images (validation)",
    ]


def test_codes_used_at_a_validation_are_drawn_under_what_even_use_would_show():
    name = "validation/codes_used_split"
    (axes,) = curves.validation([{"step": i, name: 10, f"{name}_ceiling": 63.5} for i in range(3)]).axes
    ceiling = next(line for line in axes.lines if line.get_label() == "ceiling: uniform use")
    assert ceiling.get_ydata().tolist() == [63.5] * 3
    assert axes.get_title(loc="left") == "codes used in the whole split (validation)"


@pytest.mark.parametrize(("window", "label"), [([1, 1], "window of 1 step"), ([10, 4], "window of 4 to 10 steps")])
def test_a_window_is_named_in_steps(window, label):
    assert logged.window_label(np.array(window)) == label


def test_twenty_quantizers_have_twenty_looks():
    looks = style.looks([str(i) for i in range(20)])
    assert len({(look["color"], look["linestyle"]) for look in looks.values()}) == 20


def test_no_hit_has_a_colour_that_no_number_of_hits_has(trace):
    grid = lives.heat(trace, trace.hits, life_order(trace.hits))
    drawn = mesh(heatmaps.collapse(grid).axes[0])
    colours = drawn.to_rgba(drawn.get_array()).reshape(6, 10, 4)
    none = np.isclose(colours, to_rgba(style.NOTHING)).all(-1)
    np.testing.assert_array_equal(none, grid.values == 0)


def test_survivors_stand_on_top_of_the_collapse_map(trace):
    low, high = heatmaps.collapse(lives.heat(trace, trace.hits, life_order(trace.hits))).axes[0].get_ylim()
    assert (low, high) == (6, 0)


def test_side_by_side_shares_the_colours_and_the_steps(trace):
    short = replace(trace, steps=trace.steps[:4], window=trace.window[:4], arrays={"hits": trace.hits[:4] * 100})
    heats = {name: lives.heat(one, one.hits, np.arange(6)) for name, one in {"a": trace, "b": short}.items()}
    first, second = heatmaps.side_by_side(heats).axes[:2]
    assert mesh(first).norm is mesh(second).norm
    assert (mesh(first).norm.vmin, mesh(first).norm.vmax) == (4, 900)
    assert first.get_xlim() == second.get_xlim() == (0, 50)


def test_the_norm_histogram_counts_every_code_once_live_and_dead_apart():
    norm, dead = np.array([1.0, 1.1, 1.2, 0.9]), np.array([False, False, False, True])
    patches = [patch for patch in populations.norm_histogram(norm, dead).axes[0].patches if patch.get_fill()]
    counts = {str(patch.get_label()): patch.get_data().values.sum() for patch in patches}
    assert counts == {"live (n = 3)": 3, "dead (n = 1)": 1}


def test_dead_codes_stand_in_the_margin_of_norm_against_hits():
    margin, axes = populations.norm_against_hits(np.array([1.0, 2.0, 3.0]), np.array([0, 5, 50])).axes
    assert margin.collections[0].get_offsets()[:, 1].tolist() == [1.0]
    assert np.asarray(axes.collections[0].get_offsets()).tolist() == [[5, 2.0], [50, 3.0]]


def test_zero_gradients_are_drawn_apart():
    zeros, axes = populations.gradient_histogram(np.array([0.1, 0.2, 0.0]), np.array([0.0, 0.0, 0.1]), "norm").axes
    assert [bar.get_height() for bar in zeros.patches] == [1, 2]
    assert [patch.get_data().values.sum() for patch in axes.patches] == [2, 1]


def test_ranks_fall_and_their_shares_sum_to_one():
    drawn = lines(populations.rank_frequency(np.array([1, 1, 1, 1]), np.array([0, 6, 1, 3])))
    np.testing.assert_allclose(drawn["last records (3 codes)"], [[1, 0.6], [2, 0.3], [3, 0.1]])


def test_norms_in_time_are_split_by_life_at_the_end(trace):
    norm = np.tile(np.array([1, 1, 1, 9, 1, 9], np.float32), (10, 1))
    drawn = lines(populations.norm_in_time(trace.steps, norm, np.array([0, 0, 0, 1, 0, 1], bool)))
    assert set(drawn["live at the end: median, 5 to 95 %"][:, 1]) == {1}
    assert set(drawn["dead at the end: median, 5 to 95 %"][:, 1]) == {9}


@pytest.mark.parametrize("hits", [np.zeros((3, 4), np.int64), np.ones((1, 1), np.int64)])
def test_a_codebook_without_tokens_and_one_with_a_single_code_can_be_drawn(trace, hits):
    steps = np.arange(1, len(hits) + 1)
    bare = replace(trace, steps=steps, window=np.ones_like(steps), arrays=trace.arrays | {"hits": hits})
    norm = np.zeros(hits.shape, np.float32)
    dead = recent(bare).unused
    for figure in (
        curves.usage(lives.usage_in_time(bare), hits.shape[1]),
        heatmaps.collapse(lives.heat(bare, hits, life_order(hits))),
        populations.norm_histogram(norm[-1], dead),
        populations.norm_in_time(steps, norm, dead),
        populations.norm_against_hits(norm[-1], hits.sum(0)),
        populations.gradient_histogram(norm[0], norm[-1], "norm"),
        populations.rank_frequency(hits[0], hits[-1]),
    ):
        figure.canvas.draw()
        assert all(axes.get_xlabel() or axes.get_ylabel() or axes.get_title(loc="left") for axes in figure.axes[:1])


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.05, "0.05"), (1e-5, "1e-5"), (300, "300"), (20_480, "20.48k"), (1.5e6, "1.5M")]
)
def test_ticks_are_short(value, text):
    assert style.short(value) == text
