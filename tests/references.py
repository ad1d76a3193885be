"""Slow twins: each function is the definition written as loops in float64, for the fast code to be compared with."""

import math

import torch
from torch import Tensor


def nearest(tokens: Tensor, codebook: Tensor) -> list[int]:
    """Index of the code of the least squared distance for each token, the lowest one where two are equal."""
    rows = codebook.double().tolist()
    found = []
    for token in tokens.double().tolist():
        distances = [sum((z - e) ** 2 for z, e in zip(token, row, strict=True)) for row in rows]
        found.append(distances.index(min(distances)))
    return found


def mean_squared_error(a: Tensor, b: Tensor) -> float:
    """Mean over all elements of the squared difference."""
    pairs = list(zip(a.double().flatten().tolist(), b.double().flatten().tolist(), strict=True))
    return sum((x - y) ** 2 for x, y in pairs) / len(pairs)


def codebook_gradient(tokens: Tensor, codebook: Tensor) -> Tensor:
    """(K, D) gradient of the codebook loss of VQ-VAE: 2 / (N D) times the sum over a code's tokens of (e - z)."""
    N, D = tokens.shape
    gradient = torch.zeros_like(codebook, dtype=torch.float64)
    for token, k in zip(tokens.double(), nearest(tokens, codebook), strict=True):
        gradient[k] += 2 / (N * D) * (codebook[k].double() - token)
    return gradient


def ema_step(
    codebook: Tensor, counts: Tensor, sums: Tensor, tokens: Tensor, decay: float, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Codes, counts and sums after one step of VQ-VAE's moving averages (appendix A.1) on (N, D) ``tokens``."""
    K, D = codebook.shape
    hits, totals = [0] * K, torch.zeros(K, D, dtype=torch.float64)
    for token, k in zip(tokens.double(), nearest(tokens, codebook), strict=True):
        hits[k] += 1
        totals[k] += token
    counts, sums, codes = counts.clone(), sums.clone(), torch.empty(K, D, dtype=torch.float64)
    for k in range(K):
        counts[k] = decay * counts[k] + (1 - decay) * hits[k]
        sums[k] = decay * sums[k] + (1 - decay) * totals[k]
    n = float(counts.sum())
    for k in range(K):
        codes[k] = sums[k] / ((counts[k] + eps) / (n + K * eps) * n)
    return codes, counts, sums


def kl_from_uniform(logits: Tensor) -> float:
    """Mean over the rows of (N, K) ``logits`` of sum_k p_k ln(p_k K)."""
    total = 0.0
    for row in logits.double().tolist():
        highest = max(row)
        weights = [math.exp(x - highest) for x in row]
        p = [w / sum(weights) for w in weights]
        total += sum(x * math.log(x * len(row)) for x in p if x > 0)
    return total / len(logits)


def entropies(tokens: Tensor, codebook: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """E_z[H(p)] and H(E_z[p]) for the dense p(k|z) = softmax_k(-|z - e_k|^2 / T), with a graph, in the given dtype."""
    weights = []
    for token in tokens:
        distances = torch.stack([(token - code).square().sum() for code in codebook])
        scores = (distances.min() - distances) / temperature
        weights.append(scores.exp() / scores.exp().sum())
    p = torch.stack(weights)
    each = torch.stack([-(row[row > 0] * row[row > 0].log()).sum() for row in p])
    mean = p.mean(0)
    return each.mean(), -(mean[mean > 0] * mean[mean > 0].log()).sum()
