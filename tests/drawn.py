"""Random crops, without the batches of a run."""

import numpy as np


def drawn(images, indices, seed):
    """Crops and flips of ``images`` at ``indices``, by random numbers from ``seed``."""
    return images.drawn_batch(indices, np.random.default_rng(seed).random((len(indices), 3)))
