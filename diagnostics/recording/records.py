"""What one window of training leaves behind, code by code."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]
Columns = dict[str, type[np.generic]]

#: What a field of a record is on disk.
_ON_DISK: dict[Any, type[np.generic]] = {IntArray: np.int64, FloatArray: np.float32}


@dataclass(frozen=True)
class Record:
    """Per-code figures over a window of optimizer steps. Nothing that can be derived is kept.

    The fields of a kind of record that are arrays are the columns of its trace; the first of them counts tokens.

    Attributes:
        codebook: What the codes belong to; the trace's folder has its name.
        step: The optimizer step that closed the window, counted from 1.
        window: Number of optimizer steps that the window covers.
    """

    codebook: str
    step: int
    window: int

    @classmethod
    def columns(cls) -> Columns:
        """The per-code fields with their types on disk, in their order there."""
        return {field.name: _ON_DISK[field.type] for field in fields(cls) if field.type in _ON_DISK}

    @property
    def codes(self) -> int:
        """K, the number of codes."""
        return len(getattr(self, next(iter(self.columns()))))


@dataclass(frozen=True)
class CodebookRecord(Record):
    """What a codebook does over a window.

    Usage, perplexity and dead codes are recomputed from ``hits``. ``codebook`` is the quantizer's path in the model,
    such as ``quantize``.

    Attributes:
        hits: (K,) tokens assigned to each code over the window, over all ranks.
        distortion: (K,) mean over the window's hits of |z - e_k|^2, NaN for a code without hits.
        norm: (K,) |e_k| as the last forward of the window saw it.
        drift: (K,) |e_k - e_k at the previous record|, NaN in the first record.
        grad_norm: (K,) mean over the window's steps of the L2 norm of the code's gradient row as the optimizer sees
            it (after unscaling, clipping and reduction), without the steps that a gradient scaler skipped; NaN where
            the codebook has no gradient.
        pull_norm: (K,) mean over the window's steps of the L2 norm of the closed-form gradient of the codebook loss
            mean |sg[z] - e|^2, that is 2/(N D) * sum over the code's latents of (e_k - z)
            (van den Oord et al. 2017, arXiv:1711.00937, eq. 3). Defined for every quantizer.
        resets: (K,) how often each code was re-initialised during the window: what a remedy told of, or jumps onto a
            latent of the batch as the first rank saw them. NaN where a code without hits jumped elsewhere, and where
            the codes cannot be read: what happened there cannot be known from outside.
        forwards: Forwards of the quantizer that were counted in the window, over all ranks: those in training mode with
            gradients enabled. More than one a step and micro-batch tells of a loop that runs the model several times.
    """

    hits: IntArray
    distortion: FloatArray
    norm: FloatArray
    drift: FloatArray
    grad_norm: FloatArray
    pull_norm: FloatArray
    resets: FloatArray
    forwards: int = 0


@dataclass(frozen=True)
class TokenRecord(Record):
    """How well a second stage predicts each code over a window, and what its two tables of codes do.

    Attributes:
        targets: (K,) how often each code was the one to predict over the window, over all ranks.
        nll: (K,) mean over those of -ln p(code), in nats, NaN for a code that was no target.
        embedding_norm: (K,) L2 norm of the code's row of the embedding, at the record.
        embedding_grad_norm: (K,) mean over the window's steps of the L2 norm of that row's gradient as the optimizer
            sees it (after unscaling, clipping and reduction), NaN where there is none.
        head_norm: (K,) L2 norm of the code's row of the head, at the record.
        head_grad_norm: (K,) as ``embedding_grad_norm``, of the head's row.
    """

    targets: IntArray
    nll: FloatArray
    embedding_norm: FloatArray
    embedding_grad_norm: FloatArray
    head_norm: FloatArray
    head_grad_norm: FloatArray
