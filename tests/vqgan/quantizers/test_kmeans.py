import pytest
import torch
from references import nearest

from vqtool.vqgan.quantizers.kmeans import jitter, kmeans, sample_rows

CENTERS = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(each=50):
    noise = torch.randn(4 * each, 2, generator=seeded())
    return CENTERS.repeat_interleave(each, 0) + 0.3 * noise


def test_centroids_are_the_means_of_well_separated_clusters():
    # This draw starts with a point in each cluster; Lloyd's algorithm does not leave every other one.
    points = blobs()
    generator = next(
        seeded(s) for s in range(100) if nearest(sample_rows(points, 4, seeded(s)), CENTERS) == [0, 1, 2, 3]
    )
    torch.testing.assert_close(kmeans(points, 4, generator), points.view(4, 50, 2).mean(1), rtol=1e-4, atol=1e-4)


def test_every_point_is_near_a_centroid_whatever_the_draw():
    points = blobs()
    for seed in range(5):
        assert torch.cdist(points, kmeans(points, 12, seeded(seed))).min(1).values.max() < 2


def test_centroids_are_a_fixed_point_of_assignment_and_mean():
    points = blobs()
    centroids = kmeans(points, 6, seeded(3), iterations=50)
    groups = torch.tensor(nearest(points, centroids))
    for k in range(6):
        torch.testing.assert_close(points[groups == k].mean(0), centroids[k], rtol=1e-4, atol=1e-4)


def test_fewer_points_than_clusters_gives_every_point_and_copies_apart_from_each_other():
    points = blobs(each=1)
    centroids = kmeans(points, 30, seeded())
    assert centroids.shape == (30, 2)
    assert len(centroids.unique(dim=0)) == 30
    assert torch.cdist(centroids, points).min(1).values.max() < 1


def test_an_empty_cluster_is_put_on_a_point():
    # Of many equal points one takes them all as its cluster; the others start empty.
    points = torch.cat([torch.full((60, 2), 5.0), torch.full((60, 2), 10.0)])
    generator = next(seeded(s) for s in range(100) if sample_rows(points, 5, seeded(s)).max() == 5)
    centroids = kmeans(points, 5, generator)
    assert set(map(tuple, centroids.tolist())) == {(5.0, 5.0), (10.0, 10.0)}


def test_the_generator_alone_decides():
    points = blobs()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = kmeans(points, 10, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, kmeans(points, 10, seeded(1)))
    assert not torch.equal(first, kmeans(points, 10, seeded(2)))


@pytest.mark.parametrize("count", [7, 40])
def test_rows_are_drawn_once_each_while_there_are_enough(count):
    points = torch.arange(40.0).view(40, 1)
    assert len(sample_rows(points, count, seeded()).unique()) == count


def test_more_rows_than_there_are_repeat():
    assert sample_rows(torch.arange(3.0).view(3, 1), 10, seeded()).shape == (10, 1)


def test_noise_is_a_share_of_the_spread_of_each_dimension():
    spread = torch.randn(1000, 2, generator=seeded()) * torch.tensor([1.0, 50.0])
    moved = jitter(torch.zeros(5000, 2), 0.1, spread, seeded())
    assert moved.std(0).tolist() == pytest.approx([0.1, 5.0], rel=0.1)
    assert torch.equal(jitter(spread, 0.0, spread, seeded()), spread)
