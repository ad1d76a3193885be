"""Does a quantizer's own revival of dead codes take hold? A code is taken far away, and its calls are made again."""

import re

import torch
from torch import Tensor, nn

from ..probes import CodebookReading, WatchedCodebook
from ..ranks import from_first_rank, rows_of_all_ranks, sum_over_ranks
from .evidence import Revival, Seen
from .replay import Bench
from .subject import seed_all
from .watching import CallReader, repeat, watched
from .writing import write

#: Training calls that a revival is waited for; some look at every twentieth only.
CALLS = 25
_SETTING = re.compile("threshold|expire|dead|restart|revive|reset|reinit|discard")


def setting_of(module: nn.Module) -> tuple[str, float] | None:
    """The setting that turns a revival on, by its path in the quantizer; None where there is none, or it is off."""
    for path, part in module.named_modules():
        for name, value in vars(part).items():
            if _SETTING.search(name) and isinstance(value, int | float) and float(value) > 0:
                return ".".join(piece for piece in (path, name) if piece), float(value)
    return None


def revive(seen: Seen, bench: Bench) -> None:
    """Fill in what became of a code that was taken far away."""
    _, codebook, call = bench.set_up()
    setting, codes = setting_of(codebook.module), codebook.codes()
    if setting is None or codes is None or not seen.steps:
        return
    name, value = setting
    told = ".".join(part for part in (seen.path, name) if part)
    readings: list[CodebookReading] = []
    seed_all(0)
    with watched(CallReader(codebook, readings.append)):
        repeat(call)
        hits = torch.bincount(readings[-1].indices.clamp(min=0), minlength=codebook.size)
        code = int(sum_over_ranks(hits).argmin())
        _banish(codebook, code, readings[-1].latents)
        landed, stayed, calls = None, None, 0
        while calls < CALLS and stayed is None:
            calls += 1
            repeat(call)
            near = _nearest(codebook.codes(), code, readings[-1].latents)
            if landed is not None:
                stayed = near < 1.0
            elif near < 0.02:
                landed = calls
    seen.revival = Revival(told, value, calls, landed, stayed)


def _banish(codebook: WatchedCodebook, code: int, latents: Tensor) -> None:
    """Take a code so far away that no latent is nearest to it, with a count of zero: it has had no hit."""
    far = latents.mean(0) + 100 * (latents.std(0) + latents.abs().max())
    write(codebook, code, from_first_rank(far), count=0.0)


def _nearest(codes: Tensor | None, code: int, latents: Tensor) -> float:
    """Distance of the code from the nearest latent of any rank, in spreads of that rank's latents."""
    assert codes is not None
    spread = (latents - latents.mean(0)).square().sum(1).mean().sqrt()
    nearest = (latents - codes[code]).norm(dim=1).min() / spread
    return float(rows_of_all_ranks(nearest[None]).min())
