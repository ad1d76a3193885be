"""The second stage's model: the probability of a grid of codes under a condition."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...diagnostics.errors import InputError
from ..training.randomness import seeded
from .conditions import Condition
from .gpt import GPT
from .orders import code_order, inverse
from .settings import TransformerConfig


class Vocabulary(NamedTuple):
    """Which token is what: first the codes, then the tokens of the condition, then the one that says nothing."""

    codes: int
    condition: int

    @property
    def size(self) -> int:
        """V."""
        return self.codes + self.condition + 1

    @property
    def nothing(self) -> int:
        """The token that starts an unconditional sequence and stands for a condition that is left out."""
        return self.codes + self.condition


class CodeTransformer(nn.Module):
    """A GPT over prefix and codes, in an order of its own.

    Esser et al. 2021 (arXiv:2012.09841), sec. 3.2 and 3.3. In training it puts random codes in the place of some of
    those that it reads (taming-transformers' ``pkeep``), and the token that says nothing in the place of some whole
    prefixes (Ho & Salimans 2022, arXiv:2207.12598); what is to be predicted stays what it is.

    Args:
        gpt: Its block holds the prefix and the codes.
        vocabulary: Which token is what.
        grid: Rows and columns of the codes of an image.
        order: Name of the order in which they are told.
        pkeep: Probability that a code that is read stays what it is.
        drop: Probability that a prefix is left out.
    """

    order: Tensor
    place: Tensor

    def __init__(
        self,
        gpt: GPT,
        vocabulary: Vocabulary,
        grid: tuple[int, int],
        *,
        order: str = "raster",
        pkeep: float = 1.0,
        drop: float = 0.0,
    ):
        super().__init__()
        self.gpt, self.vocabulary, self.grid, self.pkeep, self.drop = gpt, vocabulary, grid, pkeep, drop
        self.register_buffer("order", code_order(order, *grid), persistent=False)
        self.register_buffer("place", inverse(self.order), persistent=False)

    def sequence(self, codes: Tensor) -> Tensor:
        """(B, h, w) codes -> (B, N) in the order in which they are told."""
        return codes.flatten(1)[:, self.order]

    def arranged(self, sequence: Tensor) -> Tensor:
        """(B, N) in order -> (B, h, w), of codes or of anything that each of them has."""
        return sequence[:, self.place].unflatten(1, self.grid)

    def forward(self, prefix: Tensor, codes: Tensor) -> Tensor:
        """Negative log-likelihood of each code, (B, h, w) in nats, of codes (B, h, w) after prefixes (B, P)."""
        logits, targets = self.logits(prefix, codes), self.sequence(codes)
        nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return self.arranged(nll.view_as(targets))

    def logits(self, prefix: Tensor, codes: Tensor) -> Tensor:
        """(B, N, V) logits of the codes in order; see ``forward``."""
        read = self.sequence(codes)[:, :-1]
        if self.training:
            prefix, read = self._with_gaps(prefix), self._with_errors(read)
        features = self.gpt.features(torch.cat((prefix, read), 1))
        return self.gpt.head(features[:, prefix.shape[1] - 1 :])

    def _with_errors(self, codes: Tensor) -> Tensor:
        if self.pkeep == 1:
            return codes
        keep = torch.rand(codes.shape, device=codes.device) < self.pkeep
        return torch.where(keep, codes, torch.randint_like(codes, self.vocabulary.codes))

    def _with_gaps(self, prefix: Tensor) -> Tensor:
        if self.drop == 0:
            return prefix
        gone = torch.rand(len(prefix), 1, device=prefix.device) < self.drop
        return prefix.masked_fill(gone, self.vocabulary.nothing)

    def no_condition(self, prefix: Tensor) -> Tensor:
        """The prefix that says nothing, of the shape of ``prefix``."""
        return torch.full_like(prefix, self.vocabulary.nothing)


def build_transformer(config: TransformerConfig, condition: Condition, grid: tuple[int, int]) -> CodeTransformer:
    """A model as configured, initialised from the seed of the run.

    Raises:
        InputError: The start token is none of the vocabulary.
    """
    settings = config.transformer
    vocabulary = Vocabulary(config.codebook_size, condition.tokens)
    if settings.sos is not None and settings.sos >= vocabulary.size:
        raise InputError(
            f"transformer.sos {settings.sos} is no token: there are {vocabulary.size}, 0 to {vocabulary.size - 1}"
        )
    with seeded(config.train.seed):
        gpt = GPT(
            vocabulary.size,
            condition.length + grid[0] * grid[1],
            settings.sizes,
            embd_dropout=settings.dropout,
            resid_dropout=settings.dropout,
            attn_dropout=settings.dropout,
        )
    return CodeTransformer(
        gpt, vocabulary, grid, order=settings.order, pkeep=settings.pkeep, drop=config.condition.drop
    )
