"""Lloyd's algorithm, for codebooks that start from data."""

import torch
from torch import Tensor

from .search import nearest_codes


def sample_rows(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``count`` rows of ``points`` (N, D), each once before any is drawn again."""
    rounds = [torch.randperm(len(points), generator=generator) for _ in range(0, count, len(points))]
    return points[torch.cat(rounds)[:count].to(points.device)]


def jitter(points: Tensor, scale: float, spread: Tensor, generator: torch.Generator) -> Tensor:
    """``points`` (R, D) plus normal noise of ``scale`` times the standard deviation per dimension of ``spread`` (N, D).

    Equal codes tie in the nearest-code search and the lowest index takes every hit; the noise parts them.
    """
    noise = torch.randn(points.shape, generator=generator).to(points)
    return points + scale * spread.std(0, correction=0) * noise


@torch.no_grad()
def kmeans(points: Tensor, clusters: int, generator: torch.Generator, iterations: int = 10) -> Tensor:
    """(clusters, D) centroids of ``points`` (N, D) by Lloyd's algorithm (Lloyd 1982) from randomly drawn points.

    A cluster that loses its last point is put on a random point. With fewer points than clusters the surplus
    centroids are copies of points with a little noise.
    """
    if clusters > len(points):
        return jitter(sample_rows(points, clusters, generator), 0.01, points, generator)
    centroids = sample_rows(points, clusters, generator)
    for _ in range(iterations):
        nearest = nearest_codes(points, centroids)
        counts = torch.zeros(clusters, device=points.device).index_add_(0, nearest, torch.ones_like(points[:, 0]))
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        redrawn = sample_rows(points, clusters, generator)
        centroids = torch.where(counts.unsqueeze(1) > 0, sums / counts.clamp(min=1).unsqueeze(1), redrawn)
    return centroids
