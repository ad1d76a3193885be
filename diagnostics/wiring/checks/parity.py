"""Does the quantizer say the same in training, in evaluation, and when asked for its codes by index?"""

from collections.abc import Iterator

import numpy as np

from ...findings import Finding
from ..check import CannotJudge, CodebookCheck, called
from ..evidence import Forward, Rows, Seen


class TrainEval(CodebookCheck):
    name = "train-eval"
    question = "Is what goes on to the decoder the chosen code, in training as in evaluation?"
    measures = (
        "A call made again on the same latents, in training and in evaluation mode: quantized output against"
        " codebook[indices], to 5 % of the codes' scale, and the indices of both modes against each other (more than 1"
        " % apart). What is drawn at random in training is compared in evaluation only. And the codes before a call in"
        " evaluation mode against those after it, to 0.001 % of their scale."
    )
    matters = (
        "What the decoder is trained on is not what it is given later. A rotation without its scale, noise that is left"
        " on, or a cached copy of the codes look fine in training and poor in use."
    )
    advice = "Hand on z + (q - z).detach() with q = codebook[indices] in both modes; a rotation needs its |q| / |z|."
    source = "EdoardoBotta/RQ-VAE-Recommender#48, #54; Fifty et al. 2024 (arXiv:2410.06424)"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        if seen.evaluation is None or len(seen.training) < 2:
            raise CannotJudge(seen.not_done.get("replay", "its call was not made again"))
        modes = {"evaluation": seen.evaluation} | ({} if seen.random else {"training": seen.training[0]})
        for mode, made in modes.items():
            off, scale = _off(made)
            if off > 0.05 * scale:
                yield self.found(
                    f"in {mode} {seen.place} hands on something else than its chosen codes: they differ by up to"
                    f" {off:.3g}, with codes of up to {scale:.3g}",
                    seen,
                    mode=mode,
                    difference=off,
                    scale=scale,
                )
        moved, scale = _moved(seen.evaluation)
        if moved > 1e-5 * scale:
            yield self.found(
                f"a call in evaluation mode moves the codes of {seen.place}, by up to {moved:.3g}, with codes of up to"
                f" {scale:.3g}: what is measured depends on what was evaluated before",
                seen,
                moved=moved,
                scale=scale,
            )
        if not seen.random and len(seen.training[0].indices) == len(seen.evaluation.indices):
            other = float((seen.training[0].indices != seen.evaluation.indices).mean())
            if other > 0.01:
                yield self.found(
                    f"{seen.place} gives {other:.1%} of the same latents another code in evaluation than in training",
                    seen,
                    share=other,
                )


def _off(made: Forward) -> tuple[float, float]:
    """Largest difference of what is handed on from the codes in the table, and the largest value of those codes.

    Codes may move within a training call: what agrees with the table before or after it, agrees.
    """
    kept = made.counted
    handed_on = made.codes if made.quantized is None else made.quantized
    tables: list[Rows] = [table for table in (made.before, made.after) if table is not None]
    if not tables or made.indices[kept].max(initial=-1) >= len(tables[0]):
        tables, looked_up = [], [made.codes]
    else:
        looked_up = [table[made.indices.clip(0)] for table in tables]
    off = min(float(np.abs(handed_on[kept] - codes[kept]).max(initial=0)) for codes in looked_up)
    return off, float(np.abs(looked_up[0][kept]).max(initial=0))


def _moved(made: Forward) -> tuple[float, float]:
    """Largest difference of the codes after a call from those before it, and their largest value."""
    if made.before is None or made.after is None or made.before.shape != made.after.shape:
        return 0.0, 0.0
    return float(np.abs(made.after - made.before).max()), float(np.abs(made.before).max())


class RoundTrip(CodebookCheck):
    name = "round-trip"
    question = "Do the quantizer's functions from indices to codes give what its forward handed on?"
    measures = (
        "Functions such as get_codebook_entry, indices_to_codes and decode, called with the indices of a call in"
        " evaluation mode; a difference above 1 % of the scale is a problem."
    )
    matters = (
        "A model over codes samples indices and decodes them by such a function. Where it gives raw rows and the"
        " forward projected or normalised ones, every sample is decoded from vectors that the decoder has never seen."
    )
    advice = "Let that function do all that the forward does between the table and the decoder."
    source = "youngsheen/SimVQ get_codebook_entry (unprojected); transformers Janus get_codebook_entry (normalised)"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        if not seen.entries:
            raise CannotJudge(seen.not_done.get("replay", "it has no function from indices to codes that is known"))
        if seen.levels is None and (seen.evaluation is None or seen.evaluation.before is None):
            raise CannotJudge("its codes are made anew for each token: an index alone names none")
        known = [entry for entry in seen.entries if entry.difference is not None]
        if not known:
            raise CannotJudge("; ".join(f"{entry.method}: {entry.why}" for entry in seen.entries))
        for entry in known:
            assert entry.difference is not None
            if entry.difference > 0.01 * entry.scale:
                yield self.found(
                    f"{entry.method} gives other vectors than the forward for the same indices: they differ by up to"
                    f" {entry.difference:.3g}, with values of up to {entry.scale:.3g}",
                    seen,
                    attribute=entry.method,
                    difference=entry.difference,
                    scale=entry.scale,
                )
