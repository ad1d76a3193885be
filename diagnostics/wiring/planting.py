"""Does a code that is written by hand stay? It is planted on a latent, and two steps are taken."""

from collections.abc import Mapping

import numpy as np
import torch

from ..probes import Reader, find_codebooks
from .evidence import Planted, Seen
from .subject import Subject, seed_all
from .writing import usual_count, write

#: Steps after which the code is looked at: some codebooks move at the beginning of the next step.
_STEPS = 2


def plant(seen: Seen, after: Subject, read: Mapping[str, Reader] | None) -> None:
    """Fill in whether a planted code stays, written into the table alone, and with its sum and count."""
    if seen.levels is not None:
        return  # digits are no table, and their codes may be too many to be counted
    if seen.parted:
        # Each rank would plant another code, and might go on where another stops: its steps would wait for ever.
        seen.not_done["planting"] = "the ranks have codes of their own"
        return
    last = seen.steps[-1]
    code = int(np.bincount(last.indices[last.counted], minlength=seen.size).argmin())
    latent = last.latents[last.counted][0]
    alone = _returned(seen.name, after.copy(), read, code, latent, with_averages=False)
    if alone is not None:
        together = _returned(seen.name, after.copy(), read, code, latent, with_averages=True) if seen.averages else None
        seen.planted = Planted(alone, together)


def _returned(
    name: str, copy: Subject, read: Mapping[str, Reader] | None, code: int, latent: np.ndarray, with_averages: bool
) -> float | None:
    """The share of the way back to where it was that the code goes in two steps; None where that cannot be told."""
    codebook = find_codebooks(copy.model, read)[name]
    if codebook.computed or (codes := codebook.codes()) is None:
        return None
    before, there = codes[code].clone(), torch.as_tensor(latent).to(codes)
    write(codebook, code, there, usual_count(codebook) if with_averages else None)
    codes = codebook.codes()
    if codes is None or not torch.allclose(codes[code], there, rtol=1e-4) or torch.equal(before, there):
        return None
    seed_all(0)
    for _ in range(_STEPS):
        copy.zero_grad()
        copy.backward(copy.value())
        for optimizer in copy.optimizers:
            optimizer.step()
    codes = codebook.codes()
    assert codes is not None
    back, moved = before - there, codes[code] - there
    share = moved @ back / back.square().sum()
    if (moved - share * back).norm() > 0.5 * back.norm():
        return None  # it went elsewhere: a revival of the quantizer's own took it
    return float(share)
