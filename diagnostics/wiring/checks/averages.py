"""Do moving averages and the codes made of them fit together, and does a revived code stay?"""

from collections.abc import Iterator, Sequence

import numpy as np

from ...findings import Finding
from ...stats import geometry
from ..check import CannotJudge, Check, CodebookCheck, Skipped, called
from ..evidence import Averages, Seen, Trial


class MovingAverages(Check):
    name = "moving-averages"
    question = "Is each code its sum over its count, e = m / N, at the start and after a step?"
    measures = (
        "Codes e, running sums m and counts N before the first step and after each: the median over codes with a count"
        " of |e N - m| / |m|, for N as it is and smoothed. Above 0.1 is a problem. For codes of unit length the angle"
        " counts alone. And where a step leads a code: more than 0.2 spreads off the way to the centroid of its"
        " latents, in the median, is a problem."
    )
    matters = (
        "Codes that do not fit their averages are thrown to m / N at the next step: counts of zero under sums that are"
        " not throw them a hundred lengths away, sums that forgot the counts shrink them to the origin."
    )
    advice = (
        "Begin with N = 1 and m = e; after k-means with N = counts and m = e N; write all three where a code is reset."
    )
    source = "facebookresearch/encodec core_vq.py init_embed_ (embed_avg = embed, cluster_size = counts)"

    def look(self, trial: Trial) -> Iterator[Finding | Skipped]:
        by_table: dict[str, list[Seen]] = {}
        for seen in trial.seen.values():
            by_table.setdefault(seen.table, []).append(seen)
        for sharing in by_table.values():
            try:
                yield from self._look_at(sharing)
            except CannotJudge as why:
                yield from (Skipped(self.name, seen.name, str(why)) for seen in sharing)

    def _look_at(self, sharing: list[Seen]) -> Iterator[Finding]:
        """What it finds of codes that several layers may share: the latents of all of them move those."""
        seen = sharing[0]
        if any(holder.table for holder in seen.holders):
            raise CannotJudge("its codes are moved by a gradient")
        if not seen.averages:
            raise CannotJudge("it keeps no moving averages, or its codes are computed from them each time")
        for number, averages in enumerate(seen.averages):
            if number == 0 and not seen.averages_begun:
                continue
            off = misfit(averages)
            if off > 0.1:
                when = "at the start" if number == 0 else f"after step {number}"
                counts = "; all counts are zero" if not averages.counts.any() else ""
                yield self.found(
                    f"{when} the codes of {seen.place} are not their sums over their counts: |e N - m| is {off:.3g} |m|"
                    f" in the median{counts}",
                    seen,
                    attribute=seen.averages_path,
                    misfit=off,
                    step=number,
                )
                return
        for step in sorted({step.step for each in sharing for step in each.steps}):
            off = thrown(sharing, step)
            if off > 0.2:
                yield self.found(
                    f"step {step} throws the codes of {seen.place} off: it should lead each towards the centroid"
                    f" of its latents, and the median code lands {off:.3g} spreads off that way",
                    seen,
                    attribute=seen.averages_path,
                    thrown=off,
                    step=step,
                )
                return


def thrown(sharing: Sequence[Seen], number: int) -> float:
    """How far off the way from its place to the centroid of its latents the median used code lands, in spreads.

    A moving average leads a code some share of that way, and no farther. Codes that were reset onto a latent are left
    out; NaN where those are most.

    Args:
        sharing: The codebooks of one table: one, or the layers that share it.
        number: The step.
    """
    calls = [step for seen in sharing for step in seen.steps if step.step == number]
    spread = max(seen.spread for seen in sharing if seen.steps)
    if len(sharing[0].tables) <= number or spread == 0:
        return float("nan")
    indices, table, latents = (
        np.concatenate([getattr(call, field)[call.counted] for call in calls])
        for field in ("indices", "codes", "latents")
    )
    codes, first, inverse, hits = np.unique(indices, return_index=True, return_inverse=True, return_counts=True)
    used, after = table[first], sharing[0].tables[number][codes]
    reset = geometry.squared_distances(latents, after).min(0) < np.square(1e-3 * spread)
    if reset.mean() > 0.5:
        return float("nan")
    centroids = np.zeros(used.shape)
    np.add.at(centroids, inverse, latents)
    way = centroids / hits[:, None] - used
    share = ((after - used) * way).sum(1) / np.maximum(np.square(way).sum(1), 1e-12)
    off = np.linalg.norm(after - used - share.clip(0, 1)[:, None] * way, axis=1)
    return float(np.median(off[~reset]) / spread)


def misfit(averages: Averages) -> float:
    """Median of |e N - m| / |m| over the codes that have a sum, with the count that fits better; NaN without any."""
    e, m, n = averages
    total, K = n.sum(), len(n)
    smoothed = (n + 1e-5) / (total + K * 1e-5) * total
    length = np.linalg.norm(m, axis=1)
    there = (length > 1e-6 * max(float(length.max(initial=0)), 1e-30)) & ((n > 1e-2 * n.mean()) | (total == 0))
    if not there.any():
        return float("nan")
    if np.allclose(np.linalg.norm(e, axis=1), 1, atol=1e-3):
        cosine = (e * m).sum(1)[there] / length[there]
        return float(np.median(np.sqrt(np.maximum(0, 2 - 2 * cosine))))
    fits = [np.linalg.norm(e * count[:, None] - m, axis=1)[there] / length[there] for count in (n, smoothed)]
    return float(min(np.median(fit) for fit in fits))


class Reset(CodebookCheck):
    name = "reset"
    question = "Does the quantizer's own revival of dead codes take hold?"
    measures = (
        "A code is taken a hundred lengths away and its count set to zero; then the quantizer's call is made again in"
        " training mode, up to 25 times. A problem: a revival that is switched on never brings it onto a latent, or the"
        " call after that throws it out again."
    )
    matters = (
        "In EnCodec and its copies the code is replaced first and then overwritten by sum over count within the same"
        " forward: expiry is switched on, and does nothing at all."
    )
    advice = "Replace dead codes after the averages are updated, and write code, sum and count together."
    source = "facebookresearch/encodec#61, #33; jishengpeng/WavTokenizer#89; espnet#6284"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        revival = seen.revival
        if revival is None:
            raise CannotJudge(seen.not_done.get("revival", "it has no revival of dead codes that is switched on"))
        told = f"{revival.setting} is {revival.value:g}"
        evidence = {"attribute": revival.setting, "calls": revival.calls}
        if revival.landed is None:
            yield self.found(
                f"{told}, and yet a code without hits was on no latent after any of {revival.calls} training calls",
                seen,
                **evidence,
            )
        elif revival.stayed is False:
            yield self.found(
                f"{told}: a code without hits is revived by call {revival.landed}, and thrown out again by the next",
                seen,
                **evidence,
            )


class PlantedCode(CodebookCheck):
    name = "planted-code"
    question = "Does a code that is written by hand, as a reset in a training loop does, stay where it was put?"
    measures = (
        "The code with the fewest hits is written onto a latent, and two training steps are taken. More than half of"
        " the way back to where it was: it was overwritten. A problem where sum and count were written with it, or"
        " where there are none; a note where the code alone was."
    )
    matters = (
        "Moving averages make each code anew of its sum and count. A reset that writes the code alone is undone at the"
        " next step, leaves no trace, and from outside looks like no reset at all."
    )
    advice = (
        "Write code, sum and count together: e = z, N = a usual count, m = z N; or switch on the library's own revival."
    )
    source = "facebookresearch/encodec#61; SerezD/vqvae-vqgan-pytorch-lightning (re-initialisation under EMA)"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        if seen.planted is None:
            raise CannotJudge(seen.not_done.get("planting", "its codes cannot be written by hand"))
        alone, together = seen.planted
        if (together is not None and together > 0.5) or (together is None and alone > 0.5):
            back = alone if together is None else together
            averages = "" if together is None else ", with its sum and count,"
            yield self.found(
                f"a code of {seen.place} that is written onto a latent{averages} goes {back:.0%} of the way back in two"
                " steps: something overwrites it",
                seen,
                attribute=seen.table,
                returned=back,
            )
        elif alone > 0.5:
            yield self.found(
                f"a code of {seen.place} that is written alone goes {alone:.0%} of the way back in two steps; with its"
                " sum and count it stays: a reset in your loop has to write all three",
                seen,
                "info",
                attribute=seen.table,
                returned=alone,
            )
