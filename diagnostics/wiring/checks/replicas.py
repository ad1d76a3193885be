"""Do the ranks of a distributed run keep the same codebook?"""

from collections.abc import Iterator

from ...findings import Finding
from ..check import CannotJudge, CodebookCheck, called
from ..evidence import Seen


class Replicas(CodebookCheck):
    name = "replicas"
    question = "Is the codebook the same on every rank after three steps?"
    measures = (
        "The codes of all ranks after three steps, each rank with a batch of its own: the largest difference, over the"
        " codes' largest value. Above 1e-4 is a problem. Gradients are averaged by the model's wrapper, or else by the"
        " lint: what parts the codes is something else. Equal codes say nothing where the latents were equal too."
    )
    matters = (
        "DDP averages gradients, and nothing else: statistics, k-means and resets that each rank computes from its own"
        " batch part the replicas, and what is saved is the first rank's book, which the others never used."
    )
    advice = "all_reduce counts and sums before the averages are updated, and broadcast what is drawn at random."
    source = "lucidrains/vector-quantize-pytorch#17, #25, #105, #222; ZhikangNiu/encodec-pytorch#25"

    def look_at(self, seen: Seen) -> Iterator[Finding]:
        called(seen)
        if seen.parted:
            yield self.found(
                f"the codes of {seen.place} differ between ranks after three steps, by {seen.ranks_apart:.3g} of their"
                " largest value",
                seen,
                difference=seen.ranks_apart,
            )
        elif seen.ranks_apart is None or "ranks" in seen.not_done:
            raise CannotJudge(seen.not_done.get("ranks", "there is one rank only"))
