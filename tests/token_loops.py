"""A model with a codebook of another library, batches of growing size, and what a trace tells of them."""

import pandas as pd
import torch
import torch.nn.functional as F
from torch import nn
from vector_quantize_pytorch import VectorQuantize

K, D = 16, 4
#: Tokens of each batch: a record tells by their sum which batches it saw.
SIZES = (4, 6, 8, 10, 12, 14)


class Model(nn.Module):
    """Tokens (1, N, 3) -> latents -> codes -> tokens."""

    def __init__(self, learnable=False):
        super().__init__()
        torch.manual_seed(0)
        options = {"learnable_codebook": True, "ema_update": False} if learnable else {}
        self.encoder = nn.Linear(3, D)
        self.quantize = VectorQuantize(dim=D, codebook_size=K, **options)
        self.decoder = nn.Linear(D, 3)

    def forward(self, x):
        quantized, _, loss = self.quantize(self.encoder(x))
        return {"loss": F.mse_loss(self.decoder(quantized), x) + loss.sum()}


def batches(times=1):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, size, 3, generator=generator) for size in SIZES * times]


def frame(run):
    """The trace of the one codebook that there is, by whatever name."""
    (folder,) = (run / "trace").iterdir()
    return pd.read_parquet(folder)


def tokens(run):
    """The tokens of each record by its step."""
    return frame(run).groupby("step").hits.sum().to_dict()


def assert_same_trace(a, b):
    """The records of two runs are the same bit for bit, in every table."""
    tables = [path.relative_to(a) for path in sorted(a.glob("*/*")) if path.parent.name != "snapshots"]
    assert {path.parent.name for path in tables} >= {"trace", "latents", "geometry"}, tables
    for table in tables:
        pd.testing.assert_frame_equal(
            pd.read_parquet(a / table), pd.read_parquet(b / table), check_exact=True, obj=str(table)
        )
    assert snapshots(a) == snapshots(b)


def snapshots(run):
    return sorted(str(path.relative_to(run)) for path in run.glob("snapshots/*/*"))
