"""Quantizers with their codes in an ``nn.Embedding``, or in a table of the same form."""

import re
from collections.abc import Callable

from torch import Tensor, nn

from .attributes import children, table_child, tensor, tensors
from .base import Call, CodebookReading, Tap, WatchedCodebook
from .round_trip import at
from .settle import Way, settle, taken
from .staged import Boundary, Stage, StagedCodebook, live, parameters_of

_TELLING = re.compile("beta$|legacy|commit|codebook|codes_to|to_codes|decode_latents|decode_code|embed_code|kmeans")


class TableProbe:
    """Reads an embedding table, raw or with rows of unit length, whatever the layout of latents and outputs.

    Remapped indices are recovered from the quantized output. A table that moves in its own forward is read as it was.
    """

    reads = (
        "an embedding table: taming-transformers' quantizers with their `remap`, latent-diffusion, diffusers "
        "`VectorQuantizer`, LlamaGen, Chameleon, Janus, GLM, Emu3, IBQ, CVQ, SerezD, RQ-VAE-Recommender"
    )

    def matches(self, module: nn.Module) -> bool:
        child = table_child(module)
        if child is None or _is_factorised(module):
            return False
        own = {*vars(module), *tensors(module), *children(module), *dir(type(module))} - {*dir(nn.Module)}
        told = any(_TELLING.search(name) for name in own - {*children(module)})
        bare = len(children(module)) == 1 and not tensors(module)
        return told or bare

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        return {"": TableCodebook(module, weight_of(module))}


class FactorisedProbe:
    """Reads an embedding table between two projections, in the space between them."""

    reads = "an embedding table between `in_proj` and `out_proj`: the Descript audio codec and its copies"

    def matches(self, module: nn.Module) -> bool:
        return table_child(module) is not None and _is_factorised(module)

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        return {"": TableCodebook(module, weight_of(module))}


class BufferProbe:
    """Reads a table that is a buffer of the module itself, which its forward replaces."""

    reads = "a buffer `k` with the sums `k_sum`: Jukebox and its copies"

    def matches(self, module: nn.Module) -> bool:
        table = tensors(module).get("k")
        return table is not None and table.ndim == 2 and {"k_sum", "k_elem"} <= {*vars(module), *tensors(module)}

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        return {"": TableCodebook(module, lambda: tensor(module, "k"))}


def weight_of(module: nn.Module) -> Callable[[], Tensor]:
    """What gives the weight of the module's table child as it is now."""
    child = table_child(module)
    assert child is not None
    return lambda: tensor(child, "weight")


def _is_factorised(module: nn.Module) -> bool:
    return {"in_proj", "out_proj"} <= children(module).keys()


class TableCodebook(StagedCodebook):
    """A table (K, D) and the calls of its quantizer.

    Args:
        module: The quantizer.
        table: Gives the table as it is now, with its gradient.
    """

    def __init__(self, module: nn.Module, table: Callable[[], Tensor]):
        self.module, self._boundary, self._table = module, Boundary(module), table
        self._way: Way | None = None
        self.size = self._count()
        super().__init__(module, [*self._boundary.stages(), *self._more_stages(), (Tap(module), self._returned)])

    def _count(self) -> int:
        return len(self._table())

    def _more_stages(self) -> list[Stage]:
        return []

    def _returned(self, call: Call) -> CodebookReading | None:
        entered, left = self._boundary.take()
        z = call.first if entered is None else entered
        if self._way is None:
            self._way = settle(z, left, call.output, self._table(), type(self.module).__name__)
        way = self._way
        indices, latents, codes = taken(way, z, left, call.output, self._table(), type(self.module).__name__)
        quantized = left if way.quantized is None else at(call.output, way.quantized)
        return CodebookReading(indices, latents, codes, None, live(z, way.tokens), live(quantized, way.tokens))

    def codes(self) -> Tensor:
        table = self._table().detach()
        return nn.functional.normalize(table, dim=1) if self._way is not None and self._way.unit else table

    @property
    def computed(self) -> bool:
        return self._way is not None and self._way.unit

    def parameters(self) -> list[Tensor]:
        return parameters_of(self._table())

    def gradient(self) -> Tensor | None:
        table = self._table()
        return table.grad if table.is_leaf else None
