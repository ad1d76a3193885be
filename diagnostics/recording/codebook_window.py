"""What a codebook did since the last record, on the device."""

import torch
from torch import Tensor

from ..probes import CodebookReading
from ..ranks import in_group, sum_over_ranks
from .optimizer_steps import GradientState
from .records import CodebookRecord
from .sums import Sums, on_host, row_norms


class Window(Sums):
    """Adds up what a codebook does between two records. Nothing here waits for the device until ``close``.

    Args:
        codes: K, the number of codes.
        dim: D, the length of a latent.
        device: Where its latents are.
        table: Whether its codes are vectors in a table; without one they have no pull.
    """

    of_each_rank = ("hits", "distortion", "forwards")

    def __init__(self, codes: int, dim: int, device: torch.device, table: bool = True):
        def zeros(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.steps = 0
        self.steps_with_gradient = 0
        self.skipped = zeros()
        self.forwards = zeros(dtype=torch.int64)
        self.hits = zeros(codes, dtype=torch.int64)
        self.distortion = zeros(codes, dtype=torch.float64)
        self.pull_norm = zeros(codes)
        self.grad_norm = zeros(codes)
        self.resets = zeros(codes)
        self.jumps = zeros(codes)
        self.last_codebook: Tensor | None = None
        self._norm: Tensor | None = None
        self._drift: Tensor | None = None
        # Within one optimizer step, over its micro-batches:
        self._pull = zeros(codes, dim) if table else None
        self._tokens = zeros(dtype=torch.int64)
        self._gradient: Tensor | None = None
        self._skipped: Tensor | float = 0.0
        self.forwards_open = 0  # on the host

    def add(self, reading: CodebookReading) -> None:
        """Take in one forward."""
        one = reading.counted.to(torch.int64)
        indices = reading.indices.clamp(min=0)
        residual = reading.kept(reading.codes - reading.latents)
        self.forwards_open += 1
        self.forwards += 1
        self.hits.index_add_(0, indices, one)
        self.distortion.index_add_(0, indices, torch.linalg.vector_norm(residual, dim=1).square().double())
        if self._pull is not None:
            self._pull.index_add_(0, indices, residual.to(self._pull.dtype))
        self._tokens += one.sum()

    def see_jumps(self, jumped: tuple[Tensor, Tensor] | None) -> None:
        """Take in which codes (K,) jumped onto a latent, which count as reset, and which to a place unknown."""
        if jumped is not None:
            landed, elsewhere = jumped
            self.resets += landed
            self.jumps += elsewhere

    def read_gradient(self, gradient: Tensor | None, state: GradientState) -> None:
        """Take in the (K, D) gradient that the optimizer is about to use, in the place of one taken in before."""
        self._gradient = state.row_norms(gradient)
        self._skipped = state.skipped()

    def read_codes(self, codebook: Tensor) -> None:
        """Take in the (K, D) codes that the window's record tells of, before the optimizer moves them."""
        self._norm = row_norms(codebook)
        if self.last_codebook is not None:
            self._drift = row_norms(codebook - self.last_codebook)
        self.last_codebook = codebook.clone()

    @property
    def codes_read(self) -> bool:
        """Whether ``read_codes`` was called since the last record."""
        return self._norm is not None

    def close_step(self) -> Tensor | None:
        """Close one optimizer step; the (K,) norms of the gradient rows that it used, None where there are none."""
        self._close_pull()
        norms, self._gradient = self._gradient, None
        self.skipped += self._skipped
        if norms is not None:
            self.steps_with_gradient += 1
            self.grad_norm += norms
        return norms

    def skip_step(self) -> None:
        """Close one step of which the optimizer used nothing: its tokens were seen all the same."""
        self._close_pull()
        self.skipped += 1

    def _close_pull(self) -> None:
        self.steps += 1
        self.forwards_open = 0
        if self._pull is None:
            return
        if in_group():
            # The norm of a sum over ranks is not a sum of norms, so the sums have to meet once a step. It is as much
            # traffic as the gradient of the codebook itself.
            sum_over_ranks(self._pull)
            sum_over_ranks(self._tokens)
        scale = 2 / (self._tokens.clamp(min=1) * self._pull.shape[1])
        self.pull_norm += scale * row_norms(self._pull)
        self._pull.zero_()
        self._tokens.zero_()

    def close(self, name: str, step: int, resets_known: bool = True) -> CodebookRecord:
        """The record of the window, reduced over ranks, and a fresh start. Here the host waits for the device.

        Args:
            name: Of the codebook.
            step: The optimizer step that closes the window.
            resets_known: Whether a remedy tells of its resets, or jumps of the codes were looked for.
        """
        hits, distortion, forwards = self.over_ranks()
        nothing = torch.full_like(self.grad_norm, torch.nan)
        record = CodebookRecord(
            codebook=name,
            step=step,
            window=self.steps,
            forwards=int(forwards),
            hits=on_host(hits),
            distortion=on_host((distortion / hits).float()),  # 0 / 0 = NaN: no hit, no distortion
            norm=on_host(nothing if self._norm is None else self._norm),
            drift=on_host(nothing if self._drift is None else self._drift),
            grad_norm=on_host(self.grad_norm / (self.steps - self.skipped) if self.steps_with_gradient else nothing),
            pull_norm=on_host(nothing if self._pull is None else self.pull_norm / self.steps),
            resets=on_host(self.resets.where(self.jumps == 0, torch.nan) if resets_known else nothing),
        )
        self._clear()
        return record

    def _clear(self) -> None:
        for name in ("hits", "distortion", "pull_norm", "grad_norm", "resets", "jumps", "skipped", "forwards"):
            getattr(self, name).zero_()
        self.steps = self.steps_with_gradient = 0
        self._norm = self._drift = None
