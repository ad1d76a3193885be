"""Codes that a network makes of a frozen table: SimVQ."""

from torch import Tensor, nn

from .attributes import child_named, table_child, tensor, tensors
from .base import Call, CodebookReading, Tap, WatchedCodebook
from .effective import applied
from .staged import Stage, parameters_of
from .tables import TableCodebook


class ProjectedProbe:
    """Reads the codes as the network gives them; only the network learns."""

    reads = "a frozen table behind a network: SimVQ of its authors and of lucidrains, ResidualSimVQ"

    def matches(self, module: nn.Module) -> bool:
        return _transform_of(module) is not None

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        transform = _transform_of(module)
        assert transform is not None
        return {"": ProjectedCodebook(module, transform)}


def _transform_of(module: nn.Module) -> nn.Module | None:
    """The network that makes the codes."""
    if "frozen_codebook" in tensors(module):
        return child_named(module, "code_transform")
    return None if table_child(module) is None else child_named(module, "embedding_proj", "codebook_projection")


class ProjectedCodebook(TableCodebook):
    """The output (K, D) of a network, as of the last call while one is read, else as the network stands now.

    Args:
        module: The quantizer.
        transform: From its table to its codes; called once in each forward.
    """

    def __init__(self, module: nn.Module, transform: nn.Module):
        self._transform = transform
        self._used: Tensor | None = None
        super().__init__(module, self._now)

    def _now(self) -> Tensor:
        return applied(self._transform, self._frozen()) if self._used is None else self._used

    def _frozen(self) -> Tensor:
        child = table_child(self.module)
        return tensor(self.module, "frozen_codebook") if child is None else tensor(child, "weight")

    def _count(self) -> int:
        return len(self._frozen())

    def _more_stages(self) -> list[Stage]:
        return [(Tap(self._transform), self._transformed)]

    def _transformed(self, call: Call) -> None:
        # The module can also make single codes from indices.
        if call.output.shape[0] == self.size and call.first is self._frozen():
            self._used = call.output.detach()

    def _returned(self, call: Call) -> CodebookReading | None:
        reading = super()._returned(call)
        self._used = None
        return reading

    @property
    def computed(self) -> bool:
        return True

    def parameters(self) -> list[Tensor]:
        return parameters_of(self._transform, self._frozen())

    def gradient(self) -> None:
        return None
