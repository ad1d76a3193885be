"""Random projection quantizers, whose codebooks never learn."""

from torch import nn

from .attributes import children, tensors
from .base import WatchedCodebook
from .inner_codebook import InnerCodebookProbe


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
        for rest, codebook in InnerCodebookProbe().codebooks(inside[1]).items():
            codebook.module = module
            found[".".join(part for part in (inside[0], rest) if part)] = codebook
        return found


def _inside(module: nn.Module) -> tuple[str, nn.Module] | None:
    """The quantizer inside, with its name."""
    return next(
        ((name, child) for name, child in children(module).items() if InnerCodebookProbe().matches(child)), None
    )
