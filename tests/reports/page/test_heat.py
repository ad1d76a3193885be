import numpy as np
from matplotlib.colors import LogNorm, Normalize, to_rgba
from matplotlib.figure import Figure

from vqtool.reports.page.heat import Heat, colour_bar, draw_heat
from vqtool.reports.page.style import NOTHING

GRID = Heat(np.array([[0.0, 1.0], [np.nan, 10.0]], np.float32), np.array([0, 10, 20]), np.array([0, 1, 2]), 1)


def colours(norm: Normalize) -> list[tuple[float, ...]]:
    """What the cells of ``GRID`` are drawn in, row by row."""
    mesh = draw_heat(Figure().subplots(), GRID, norm, "viridis")
    return [tuple(colour) for colour in mesh.to_rgba(mesh.get_array()).reshape(-1, 4)]


def test_on_a_logarithmic_scale_nothing_is_a_zero_and_a_gap_is_white():
    zero, one, gap, ten = colours(LogNorm(1, 10))
    assert zero == to_rgba(NOTHING)
    assert gap == to_rgba("white")
    assert len({zero, one, gap, ten}) == 4


def test_on_a_linear_scale_nothing_is_a_gap_and_zero_a_number():
    zero, one, gap, ten = colours(Normalize(-10, 10))
    assert gap == to_rgba(NOTHING)
    assert len({zero, one, gap, ten}) == 4


def test_the_colour_bar_goes_on_where_the_scale_does():
    ends = {}
    for norm in (LogNorm(1, 10), Normalize(-10, 10)):
        figure = Figure()
        axes = figure.subplots()
        colour_bar(figure, draw_heat(axes, GRID, norm, "viridis"), axes, "hits")
        ends[type(norm)] = figure.axes[1].get_ylabel(), figure.axes[1]._colorbar.extend
    assert ends == {LogNorm: ("hits", "min"), Normalize: ("hits", "both")}


def test_a_cell_names_what_it_covers_in_one_and_in_several():
    assert GRID.cell == ""
    assert "up to 1 code × 3 records," in Heat(GRID.values, GRID.steps, GRID.codes, 3).cell
    assert "up to 2 codes × 1 record," in Heat(GRID.values, GRID.steps, np.array([0, 2, 3]), 1).cell
