"""What one window of one codebook leaves behind."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float32]

#: The per-code columns of a record, in the order of the columns on disk, with their types on disk.
COLUMNS: dict[str, type[np.generic]] = {
    "hits": np.int64,
    "distortion": np.float32,
    "norm": np.float32,
    "drift": np.float32,
    "grad_norm": np.float32,
    "pull_norm": np.float32,
    "resets": np.int64,
}


@dataclass(frozen=True)
class CodebookRecord:
    """Per-code figures of one codebook over a window of optimizer steps.

    Nothing that can be derived is kept: usage, perplexity and dead codes are recomputed from ``hits``.

    Attributes:
        codebook: Name of the codebook (the module's path in the model, such as ``quantize``).
        step: The optimizer step that closed the window, counted from 1.
        window: Number of optimizer steps that the window covers.
        hits: (K,) tokens assigned to each code over the window, over all ranks.
        distortion: (K,) mean over the window's hits of |z - e_k|^2, NaN for a code without hits.
        norm: (K,) |e_k| as the last forward of the window saw it.
        drift: (K,) |e_k - e_k at the previous record|, NaN in the first record.
        grad_norm: (K,) mean over the window's steps of the L2 norm of the code's gradient row as the optimizer sees
            it (after unscaling, clipping and reduction), NaN where the codebook has no gradient.
        pull_norm: (K,) mean over the window's steps of the L2 norm of the closed-form gradient of the codebook loss
            mean |sg[z] - e|^2, that is 2/(N D) * sum over the code's latents of (e_k - z)
            (van den Oord et al. 2017, arXiv:1711.00937, eq. 3). Defined for every quantizer.
        resets: (K,) how often a remedy re-initialised each code during the window.
    """

    codebook: str
    step: int
    window: int
    hits: IntArray
    distortion: FloatArray
    norm: FloatArray
    drift: FloatArray
    grad_norm: FloatArray
    pull_norm: FloatArray
    resets: IntArray
