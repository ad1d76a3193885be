"""Does a quantizer's own revival of dead codes take hold? A code is taken far away, and its calls are made again."""

import re

import torch
from torch import Tensor, nn

from ..probes import CodebookReading, WatchedCodebook
from ..probes.attributes import tensors
from ..ranks import from_first_rank, rows_of_all_ranks, sum_over_ranks
from .averages import pair_of, table_holder
from .evidence import Revival, Seen
from .replay import Bench
from .subject import seed_all
from .watching import CallReader, repeat, watched

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


@torch.no_grad()
def _banish(codebook: WatchedCodebook, code: int, latents: Tensor) -> None:
    """Take a code so far away that no latent is nearest to it, and its averages with it: it has had no hit."""
    table = codebook.codes()
    assert table is not None
    far = from_first_rank(latents.mean(0) + 100 * (latents.std(0) + latents.abs().max()))
    holder = table_holder(codebook)
    places = [] if holder is None else [p for p in tensors(holder).values() if p.is_floating_point()]
    counts, sums = (None, None) if holder is None else (pair_of(holder) or (None, None))
    for place in [*places, *codebook.parameters()]:
        rows = place.data.view(-1, place.shape[-1]) if place.ndim > 1 else None
        if rows is not None and rows.shape == table.shape and place is not sums:
            rows[code] = far.to(rows)
    if sums is not None:
        sums.data.view(-1, sums.shape[-1])[code] = 0
    if counts is not None:
        counts.data.view(-1)[code] = 0


def _nearest(codes: Tensor | None, code: int, latents: Tensor) -> float:
    """Distance of the code from the nearest latent of any rank, in spreads of that rank's latents."""
    assert codes is not None
    spread = (latents - latents.mean(0)).square().sum(1).mean().sqrt()
    nearest = (latents - codes[code]).norm(dim=1).min() / spread
    return float(rows_of_all_ranks(nearest[None]).min())
