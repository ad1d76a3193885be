"""Semantic ids of a residual quantizer, from its model and from a file: ``python docs/statistics/semantic_ids.py``."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from vector_quantize_pytorch import ResidualVQ

from vqtool.cli import app
from vqtool.diagnostics import measure_codebooks


def items(kinds: int = 40, each: int = 75, dim: int = 32) -> torch.Tensor:
    """Embeddings of items of some kinds, which differ more and more finely within a kind."""
    noise = torch.randn(kinds, each, dim) * torch.linspace(1.5, 0.05, dim)
    return (3 * torch.randn(kinds, 1, dim) + noise).flatten(0, 1)


def main(folder: str) -> None:
    torch.manual_seed(0)
    embeddings = items()
    model = nn.Sequential(ResidualVQ(dim=32, codebook_size=64, num_quantizers=3, kmeans_init=True))
    for _ in range(20):
        model(embeddings[None])
    batches = embeddings[torch.randperm(len(embeddings))].reshape(30, 1, -1, 32)
    print(measure_codebooks(model, batches).layers["0.layers"])

    path = Path(folder) / "ids.npy"
    np.save(path, model.eval()(embeddings[None])[1][0].numpy())
    print("\n$ vqtool measure --indices ids.npy --codes 64 --layout items,layers")
    app(["measure", "--indices", str(path), "--codes", "64", "--layout", "items,layers"], standalone_mode=False)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
