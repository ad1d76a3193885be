"""What the layers of one quantizer do together: ``LayersMeasurement``."""

import math
from dataclasses import dataclass
from functools import cached_property

from .. import stats


@dataclass(frozen=True)
class LayersMeasurement:
    """The codes of the same tokens in the layers, heads or groups of one quantizer, over a whole pass or file.

    Each token has a tuple of codes. A layer alone is told of over the tokens with a code in it, a layer given those
    before over the tokens with a code there too, tuples over the tokens with a code in every layer.

    Attributes:
        name: What the layers have in common, such as their path in the model.
        codebooks: The names of the layers in their order.
        tuples: The distinct tuples, and how many tokens have each.
        residual_energy: What each layer leaves: E|z_l - q_l|^2 over the variance E|z_0 - E z_0|^2 of what enters the
            first one, z_l being what enters layer l and q_l its code. NaN where layers do not quantize what the layer
            before left, in the same space, z_(l+1) = z_l - q_l; that was checked token by token.
    """

    name: str
    codebooks: tuple[str, ...]
    tuples: stats.Tuples
    residual_energy: tuple[float, ...]

    @cached_property
    def collisions(self) -> stats.Collisions:
        """Distinct tuples, and how many tokens have a tuple that is not theirs alone."""
        return stats.collisions(self.tuples)

    @cached_property
    def alone(self) -> list[stats.ConditionalEntropy]:
        """The entropy of each layer, in bits."""
        return stats.layer_entropies(self.tuples)

    @cached_property
    def conditional(self) -> list[stats.ConditionalEntropy]:
        """The entropy of each layer given the layers before it, in bits."""
        return stats.conditional_entropies(self.tuples)

    @property
    def most_bits(self) -> list[float]:
        """log2 K of each layer."""
        return [math.log2(K) for K in self.tuples.codes]

    @property
    def efficiency(self) -> float:
        """Bits of the layers, each alone, over log2 K of all: the bitrate efficiency of codecs, between 0 and 1.

        Kumar et al. 2023, arXiv:2306.06546. Of plug-in entropies; what layers repeat of each other is not taken off.
        """
        return sum(each.plug_in for each in self.alone) / sum(self.most_bits)

    def given(self, number: int) -> str:
        """The bits of a layer given those before, in words."""
        low, high = self.conditional[number].low, self.conditional[number].high
        nothing = math.isnan(low) or (low == 0 and high >= self.most_bits[number])
        return "not known" if nothing else f"{low:.2f} to {high:.2f}"

    def __str__(self) -> str:
        return "\n".join([self._of_tuples, *map(self._of_layer, range(len(self.codebooks)))])

    @property
    def _of_tuples(self) -> str:
        found = self.collisions
        left_out = f", {found.incomplete:,} more without a code in each" if found.incomplete else ""
        return (
            f"{self.name}: {len(self.codebooks)} codebooks together: {found.distinct:,} distinct tuples of"
            f" {found.tokens:,} tokens{left_out}; collision rate {stats.percent(found.rate)},"
            f" {stats.percent(found.shared)} share their tuple"
        )

    def _of_layer(self, number: int) -> str:
        alone, given, left = self.alone[number], self.conditional[number], self.residual_energy[number]
        told = [f"{alone.plug_in:.2f} of {self.most_bits[number]:.2f} bits"]
        if number:
            told.append(
                f"{self.given(number)} given those before ({given.tokens:,} tokens, {given.contexts:,} prefixes,"
                f" coverage {stats.percent(given.coverage)})"
            )
        if not math.isnan(left):
            told.append(f"leaves {100 * left:.3g} % of the variance")
        return f"  {self.codebooks[number]}: {', '.join(told)}"
