import pandas as pd

from vqtool.reports.comparison import curves


def test_the_band_is_the_sample_standard_deviation_of_the_seeds():
    band = curves.band([pd.Series({1: 1.0, 2: 5.0}), pd.Series({1: 3.0, 2: 5.0}), pd.Series({1: 5.0, 2: 5.0})])
    assert band["mean"].tolist() == [3.0, 5.0]
    assert band["sd"].tolist() == [2.0, 0.0]


def test_the_band_ends_where_a_seed_stopped():
    band = curves.band([pd.Series({1: 1.0, 2: 5.0, 3: 6.0}), pd.Series({1: 3.0, 2: 5.0})])
    assert band.index.tolist() == [1, 2]


def test_one_seed_has_no_band_and_says_so():
    several = [pd.Series({1: 1.0, 2: 2.0}), pd.Series({1: 2.0, 2: 3.0})]
    figure = curves.usage_by_name({"ema": several, "standard": several[:1]}, "codes used")
    axes = figure.axes[0]
    assert len(axes.collections) == 1
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["ema (n = 2 seeds)", "standard (1 seed, no band)"]


def test_a_curve_of_one_point_is_a_dot():
    curves_of = {"ema": [pd.Series({1: 1.0})], "standard": [pd.Series({1: 1.0, 2: 2.0})]}
    one, two = curves.loss_by_name(curves_of, "loss").axes[0].get_lines()
    assert (one.get_marker(), two.get_marker()) == ("o", "None")
