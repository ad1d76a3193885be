"""lucidrains' ``ResidualVQ``: layers that search by beams, or whose codes a network makes anew for each token."""

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .attributes import child_named, children, has_method, tensors
from .base import Call, CodebookReading, Tap, WatchedCodebook
from .inner_codebook import InnerCodebook, inner_codebooks, inner_of
from .round_trip import rows
from .staged import Stage, parameters_of


class ResidualProbe:
    """Reads the layers, each by its own codes, also where they share one codebook.

    In a beam search only the codes of the best beam are read, of which the library tells the layers in training only.
    """

    reads = "lucidrains' `ResidualVQ`: a codebook a layer, shared or not; dropped layers, beam search, implicit neural codes"

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
        for number, layer in enumerate(layers):
            made_anew = networks is not None and number > 0
            for rest, codebook in inner_codebooks(layer, NeuralCodebook if made_anew else BeamCodebook).items():
                if isinstance(codebook, NeuralCodebook) and isinstance(networks, nn.ModuleList):
                    codebook.network = networks[number - 1]
                found[".".join(part for part in (f"layers.{number}", rest) if part)] = codebook
        return found


class BeamCodebook(InnerCodebook):
    """The codebook of a layer. In a beam search nothing counts until the layer is told which beam was best."""

    _before: Tensor | None = None

    def _more_stages(self) -> list[Stage]:
        return [(Tap(self.module, "update_indices"), self._told)] if has_method(self.module, "update_indices") else []

    def _quantized(self, call: Call) -> None:
        if call.kwargs.get("topk") is None:
            super()._quantized(call)
        elif self._boundary.is_open and self.module.training:
            # The codes that the beams are made of; they move when the layer is told which beam was best.
            self._before = self._searched().clone()

    def _searched(self) -> Tensor:
        codes = self.codes()
        assert codes is not None
        return codes

    def _told(self, call: Call) -> CodebookReading | None:
        before, self._before = self._before, None
        self._boundary.take()
        if before is None:
            return None
        latents, indices = call.args[:2]
        z, indices = rows(latents.detach()).float(), indices.flatten().long()
        if vars(self._inner).get("use_cosine_sim"):
            z = F.normalize(z, dim=-1)
        if not self._settled:
            self._check(indices, z, z)
            self._settled = True
        return CodebookReading(indices, z, before[indices.clamp(min=0)].float(), self._mask(call, len(indices)))


class NeuralCodebook(BeamCodebook):
    """The codebook of a layer whose codes a network makes for each token, of the table and of the layers before."""

    network: nn.Module | None = None

    def _searched(self) -> Tensor:
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
