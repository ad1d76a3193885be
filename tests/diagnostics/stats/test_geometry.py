"""Geometry: known arrangements, and slow twins."""

import numpy as np
import pytest
import torch

from vqtool.diagnostics.stats import geometry


def points(n, d, seed=0, **normal):
    return np.random.default_rng(seed).normal(size=(n, d), **normal).astype(np.float32)


def test_scale_offset_and_spread_of_known_clouds():
    z, e = points(4000, 8), points(2000, 8, 1) * 0.1
    assert geometry.spread(z) == pytest.approx(8**0.5, rel=0.02)
    assert geometry.scale(z, e) == pytest.approx(0.1, rel=0.05)
    assert geometry.offset(z + 5, e) == pytest.approx(5, rel=0.03)  # 5 sqrt(8) over sqrt(8)
    assert geometry.offset(z, e) < 0.1


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_effective_rank_of_an_even_spectrum_is_its_rank(rank):
    z = points(4000, 8)
    z[:, rank:] = 0
    assert geometry.effective_rank(z) == pytest.approx(rank, rel=0.01)


def test_as_many_balls_as_far_clusters():
    centres = points(12, 4, 1) * 100
    z = centres[np.arange(600) % 12] + points(600, 4) * 0.1
    assert geometry.cover_number(z) == 12
    assert geometry.cover_number(np.ones((50, 3), np.float32)) == 1


def test_identical_latents_and_duplicate_codes_are_counted():
    z = points(100, 4)
    z[:30] = z[30]
    assert geometry.identical_share(z) == 0.31
    e = points(400, 8)
    e[:100] = e[100:200] + 1e-5
    assert geometry.duplicate_share(e, 1.0) == 0.5
    assert geometry.duplicate_share(e + 1000, 1.0) == pytest.approx(0.5, abs=0.02)  # an offset takes no digits


def test_distances_are_those_of_a_loop():
    z, e = points(20, 6) + 30, points(50, 6, 1) + 30
    slow = np.array([[np.square(a.astype(float) - b).sum() for b in e] for a in z])
    np.testing.assert_allclose(geometry.squared_distances(z, e), slow, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("metric", geometry.METRICS)
def test_an_assignment_agrees_with_its_own_metric(metric):
    z, e = points(300, 6), points(64, 6, 1)
    z64, e64 = z.astype(float), e.astype(float)
    slow = {
        "euclidean": np.square(z64[:, None] - e64).sum(2).argmin(1),
        "cosine": ((z64 @ e64.T) / np.linalg.norm(e64, axis=1)).argmax(1),
        "dot product": (z64 @ e64.T).argmax(1),
    }[metric]
    assert geometry.nearest_share(z, e, slow, metric) == 1
    other = next(name for name in geometry.METRICS if name != metric)
    assert geometry.nearest_share(z, e, slow, other) < 0.99


def test_rounding_to_bfloat16_is_torchs():
    values = points(1000, 3) * np.float32(10) ** np.arange(-3, 6, 3)
    np.testing.assert_array_equal(geometry.to_bfloat16(values), torch.as_tensor(values).bfloat16().float().numpy())


def test_low_precision_shows_where_latents_are_far_from_the_origin():
    z, e = points(500, 16), points(256, 16, 1)
    near = geometry.squared_distances(z, e)
    agreed = geometry.bfloat16_agreement(z, e, near.argmin(1))
    far = geometry.bfloat16_agreement(z + 10, e + 10, near.argmin(1))
    assert agreed > 0.8
    assert far < 0.3


def test_dead_reach_tells_codes_among_the_data_from_those_out_of_reach():
    z, used = points(400, 4), np.arange(60) < 30
    inside = np.concatenate([points(30, 4, 1), points(30, 4, 2) * 0.01])
    outside = np.concatenate([points(30, 4, 1), points(30, 4, 2) + 50])
    error = 0.5
    assert geometry.dead_reach(geometry.squared_distances(z, inside), used, error) < 1
    assert geometry.dead_reach(geometry.squared_distances(z, outside), used, error) > 50
    assert np.isnan(geometry.dead_reach(geometry.squared_distances(z, inside), np.ones(60, bool), error))


def test_the_bias_share_is_the_squared_distance_of_codes_to_centroids():
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 8, 20_000)
    centroids = points(8, 4) * 5
    z = centroids[indices] + rng.normal(size=(20_000, 4))
    on_centroids = geometry.bias_share(z, centroids[indices], indices)
    shifted = geometry.bias_share(z, centroids[indices] + 1.0, indices)
    assert on_centroids == pytest.approx(0, abs=2e-3)
    assert shifted == pytest.approx(4 / (4 + 4), rel=0.03)  # |shift|^2 of 4, scatter of 4
