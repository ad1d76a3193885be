"""Random projection quantizers, whose codebooks never learn."""

from torch import nn

from .attributes import children, tensors
from .base import WatchedCodebook
from .inner_codebook import InnerCodebook, InnerCodebookProbe, inner_codebooks


class RandomProjectionProbe:
    """Reads the codebooks of the quantizer inside.

    That is set to evaluation in every forward, so a call counts where the whole is in training.
    """

    reads = "lucidrains' `RandomProjectionQuantizer`"

    def matches(self, module: nn.Module) -> bool:
        projections = tensors(module).get("rand_projs")
        return projections is not None and projections.ndim == 3 and _inside(module) is not None

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        inside = _inside(module)
        assert inside is not None
        found: dict[str, WatchedCodebook] = {}
        for rest, codebook in inner_codebooks(inside[1], FixedCodebook).items():
            codebook.module = module
            found[".".join(part for part in (inside[0], rest) if part)] = codebook
        return found


class FixedCodebook(InnerCodebook):
    """A random codebook that stays as it is."""

    @property
    def fixed(self) -> bool:
        return True


def _inside(module: nn.Module) -> tuple[str, nn.Module] | None:
    """The quantizer inside, with its name."""
    return next(
        ((name, child) for name, child in children(module).items() if InnerCodebookProbe().matches(child)), None
    )
