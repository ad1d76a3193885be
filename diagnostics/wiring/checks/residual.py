"""Does what a residual layer asks of the latents reach the encoder?"""

from collections.abc import Iterator

from ...findings import Finding
from ..check import CannotJudge, CodebookCheck, called
from ..evidence import Seen


class ResidualCommitment(CodebookCheck):
    name = "residual-commitment"
    question = "Does the commitment loss of each residual layer reach the encoder?"
    measures = (
        "What a gradient of noise at the latents of a later layer gives the parameters before the quantizer, over the"
        " same at the latents of the first layer. Below 0.001 is a problem."
    )
    matters = (
        "Where the residual is taken as r - (r + sg[q - r]) the gradient cancels exactly: the commitment losses of all"
        " layers but the first are computed, logged and without effect."
    )
    advice = "Detach what is taken away: residual = residual - quantized.detach()."
    source = "facebookresearch/encodec#25; lucidrains/vector-quantize-pytorch#33"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        if seen.to_encoder is None:
            raise CannotJudge("it is no later layer of a residual quantizer, or nothing before that learns")
        if seen.to_encoder < 1e-3:
            yield self.found(
                f"{seen.to_encoder:.2g} of a gradient at the latents of {seen.place} reaches the encoder: its"
                " commitment trains nothing there",
                seen,
                carried=seen.to_encoder,
            )
