"""lucidrains' ``ResidualVQ``: layers that search by beams, or whose codes a network makes anew for each token."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .attributes import child_named, children, tensors
from .base import Call, CodebookReading, Tap, WatchedCodebook
from .inner_codebook import InnerCodebook, inner_of
from .round_trip import rows
from .staged import Stage, parameters_of


class ResidualProbe:
    """Reads the layers, each by its own codes, also where they share one codebook."""

    reads = (
        "layers of inner codebooks, shared or not: lucidrains' `ResidualVQ`, with dropped layers, beam search and "
        "implicit neural codes"
    )

    def matches(self, module: nn.Module) -> bool:
        layers = child_named(module, "layers")
        if not isinstance(layers, nn.ModuleList) or len(layers) == 0:
            return False
        special = "beam_score_weights" in tensors(module) or "mlps" in children(module)
        return special and all(inner_of(layer) is not None for layer in layers)

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        layers, networks = child_named(module, "layers"), child_named(module, "mlps")
        assert isinstance(layers, nn.ModuleList)
        found: dict[str, WatchedCodebook] = {}
        beams = Beams()
        for number, layer in enumerate(layers):
            if isinstance(networks, nn.ModuleList) and number > 0:
                codebook = NeuralCodebook(layer, module, beams, number)
                codebook.network = networks[number - 1]
            else:
                codebook = LayerCodebook(layer, module, beams, number)
            found[f"layers.{number}"] = codebook
        return found


class Beams:
    """What the layers of one residual quantizer have to know of each other during a beam search."""

    def __init__(self):
        self._entered: Tensor | None = None
        self._tables: dict[int, Tensor] = {}

    def enter(self, call: Call) -> None:
        """Take the latents as the residual quantizer has projected them."""
        self._entered = call.output

    def search(self, layer: int, table: Tensor) -> None:
        """Take the codes (K, D) that a layer's beams are made of, for they may move before the search is over."""
        self._tables[layer] = table.clone()

    def best(self, layer: int, indices: Tensor) -> tuple[Tensor, Tensor] | None:
        """The latents (N, D) and codes (N, D) of a layer in the best beams; None where it did not search.

        Args:
            layer: Its number. The last one that searched closes the search.
            indices: (..., layers) what the residual quantizer returned.
        """
        if not self._tables:
            self._entered = None
        if layer not in self._tables or self._entered is None:
            return None
        rest = rows(self._entered.detach()).float()
        steps = [self._tables[each][indices[..., each].flatten().clamp(min=0)] for each in range(layer + 1)]
        for step in steps[:-1]:
            rest = rest - step
        if layer == max(self._tables):
            self._entered, self._tables = None, {}
        return rest, steps[-1]


class LayerCodebook(InnerCodebook):
    """The codebook of a layer. Of a beam search the best beam counts, of which the residual quantizer's output tells.

    Args:
        module: The quantizer of the layer.
        residual: The residual quantizer that it is a layer of.
        beams: What the layers of that one share.
        number: Which layer it is.
    """

    def __init__(self, module: nn.Module, residual: nn.Module, beams: Beams, number: int):
        self._beams, self._number = beams, number
        inner = inner_of(module)
        assert inner is not None
        super().__init__(module, inner, 0)
        projection = child_named(residual, "project_in")
        ends: list[Stage] = [] if projection is None else [(Tap(projection), beams.enter)]
        self.add_stages([*ends, (Tap(residual), self._searched)])

    def _quantized(self, call: Call) -> None:
        if call.kwargs.get("topk") is None:
            super()._quantized(call)
        elif self._boundary.is_open:
            self._beams.search(self._number, self._beam_codes().float())

    def _beam_codes(self) -> Tensor:
        codes = self.codes()
        assert codes is not None
        return codes

    def _searched(self, call: Call) -> CodebookReading | None:
        self._boundary.take()  # telling a layer of its best codes opens it once more
        best = self._beams.best(self._number, call.output[1])
        if best is None:
            return None
        indices, (z, codes) = call.output[1][..., self._number].flatten().long(), best
        if vars(self._inner).get("use_cosine_sim"):
            z = F.normalize(z, dim=-1)
        if not self._settled:
            self._check(indices, z, codes)
            self._settled = True
        return CodebookReading(indices, z, codes, self._mask(call, len(indices)))


class NeuralCodebook(LayerCodebook):
    """The codebook of a layer whose codes a network makes for each token, of the table and of the layers before."""

    network: nn.Module | None = None

    def _beam_codes(self) -> Tensor:
        raise InputError(f"{self._kind}: beams over codes that a network makes anew for each token cannot be read")

    def _check(self, indices: Tensor, latents: Tensor, codes: Tensor) -> None:
        # One index stands for another vector in each token.
        super()._check(indices, latents, latents)

    def codes(self) -> None:
        return None

    def parameters(self) -> list[Tensor]:
        return [*super().parameters(), *parameters_of(self.network)]

    def gradient(self) -> None:
        return None
