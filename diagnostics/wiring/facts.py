"""What was measured of a codebook, in one line: what a reader compares with what was meant."""

from collections.abc import Iterator
from contextlib import suppress

from .check import CannotJudge
from .checks.assignment import judged
from .checks.commitment import commitment
from .checks.fits import codebook_pull
from .evidence import Seen


def facts(seen: Seen) -> str:
    """The estimator, the weight at either side, the metric, and what moves the codes."""
    return f"measured: {seen.name}, {seen.tokens:,} tokens a step: {'; '.join(_facts(seen))}"


def _facts(seen: Seen) -> Iterator[str]:
    row = next((row for row in seen.boundary if row.estimator is not None), None)
    if row is not None and row.gain is not None:
        yield f"estimator {row.estimator}, gain {row.gain:.3g}"
    else:
        yield "estimator not known"
    with suppress(CannotJudge):
        yield f"latents are pulled to codes with weight {commitment(seen):.3g}"
    weight, r2 = codebook_pull(seen)
    if r2 > 0.9:
        yield f"codes to latents with {weight:.3g}"
    with suppress(CannotJudge):
        made, metric, share = judged(seen)
        yield f"{share:.1%} of {int(made.counted.sum()):,} indices are of the nearest code by {metric}"
    yield f"codes {_moved_by(seen)}"


def _moved_by(seen: Seen) -> str:
    if seen.fixed:
        return "are fixed"
    if seen.holders:
        return f"moved by the gradient of {', '.join(holder.path for holder in seen.holders[:3])}"
    return "moved by moving averages" if seen.averages else "moved by themselves, or not at all"
