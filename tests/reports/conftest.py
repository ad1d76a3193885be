import numpy as np
import pytest

from vqtool.diagnostics.recording.trace import CodebookTrace


@pytest.fixture
def trace() -> CodebookTrace:
    """Ten records of six codes with known lives: code 5 never lives, code 3 dies after record 4, code 1 after 7."""
    hits = np.full((10, 6), 4, np.int64)
    hits[:, 5] = 0
    hits[5:, 3] = 0
    hits[8:, 1] = 0
    hits[:, 2] = 9
    norm = np.ones((10, 6), np.float32)
    zeros = np.zeros((10, 6), np.float32)
    steps = np.arange(1, 11) * 5
    arrays = {"hits": hits, "norm": norm, "grad_norm": zeros, "pull_norm": norm, "resets": np.zeros_like(hits)}
    return CodebookTrace("quantize", steps, np.full(10, 5), arrays)
