"""What a probe is, and what it reads off one forward."""

from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn


class CodebookReading(NamedTuple):
    """What a probe reads off one forward of a codebook.

    Attributes:
        indices: (N,) int64 code of each token.
        latents: (N, D) what was quantized, in the space of the codes.
        codes: (N, D) the assigned codes as the forward used them. They are read, not looked up afterwards, because some
            codebooks move within their own forward.
        mask: (N,) bool, False for padding; None where every token counts.
    """

    indices: Tensor
    latents: Tensor
    codes: Tensor
    mask: Tensor | None = None


class Probe(Protocol):
    """Knows one family of quantizers; one file a family."""

    def matches(self, module: nn.Module) -> bool:
        """Whether ``module`` is a quantizer of this family."""
        ...

    def site(self, module: nn.Module) -> nn.Module:
        """The module, ``module`` itself or one inside it, whose forward is read."""
        ...

    def read(
        self, site: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> CodebookReading | None:
        """The reading of one forward of the site, detached; None for a forward that does not count."""
        ...

    def codebook(self, module: nn.Module) -> Tensor:
        """(K, D) the codes now, detached."""
        ...

    def gradient(self, module: nn.Module) -> Tensor | None:
        """(K, D) gradient of the codes as it stands, None where they have none."""
        ...
