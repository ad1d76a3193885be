"""What a codebook did since the last record, on the device."""

import torch
from torch import Tensor

from ..probes import CodebookReading
from ..ranks import in_group, sum_over_ranks
from .records import CodebookRecord
from .sums import Sums, on_host


class Window(Sums):
    """Adds up what a codebook does between two records. Nothing here waits for the device until ``close``.

    Args:
        codebook: (K, D) the codes at the start.
    """

    of_each_rank = ("hits", "distortion")

    def __init__(self, codebook: Tensor):
        K, D = codebook.shape
        new = codebook.new_zeros
        self.steps = 0
        self.steps_with_gradient = 0
        self.skipped = 0
        self.hits = new(K, dtype=torch.int64)
        self.distortion = new(K, dtype=torch.float64)
        self.pull_norm = new(K, dtype=torch.float32)
        self.grad_norm = new(K, dtype=torch.float32)
        self.resets = new(K, dtype=torch.int64)
        self.last_codebook: Tensor | None = None
        # Within one optimizer step, over its micro-batches:
        self._pull = new(K, D, dtype=torch.float32)
        self._tokens: Tensor | int = 0

    def add(self, reading: CodebookReading) -> None:
        """Take in one forward."""
        indices, residual = reading.indices, reading.codes - reading.latents
        one = torch.ones_like(indices)
        if reading.mask is not None:
            one = reading.mask.to(indices.dtype)
            indices = indices.where(reading.mask, 0)
            residual = residual * one.unsqueeze(1)
        self.hits.index_add_(0, indices, one)
        self.distortion.index_add_(0, indices, residual.square().sum(1).double())
        self._pull.index_add_(0, indices, residual)
        self._tokens = self._tokens + (len(indices) if reading.mask is None else one.sum())

    def end_step(self, gradient: Tensor | None) -> None:
        """Close one optimizer step, with the (K, D) gradient that the optimizer is about to use."""
        self._close_pull()
        if gradient is not None:
            self.steps_with_gradient += 1
            dense = gradient.to_dense() if gradient.is_sparse else gradient
            self.grad_norm += torch.linalg.vector_norm(dense.float(), dim=1)

    def skip_step(self) -> None:
        """Close one step of which the optimizer used nothing: its tokens were seen all the same."""
        self._close_pull()
        self.skipped += 1

    def _close_pull(self) -> None:
        self.steps += 1
        tokens = self._tokens
        if in_group():
            # The norm of a sum over ranks is not a sum of norms, so the sums have to meet once a step. It is as much
            # traffic as the gradient of the codebook itself.
            sum_over_ranks(self._pull)
            tokens = sum_over_ranks(torch.as_tensor(tokens, device=self._pull.device))
        scale = 2 / (torch.as_tensor(tokens).clamp(min=1) * self._pull.shape[1])
        self.pull_norm += scale * torch.linalg.vector_norm(self._pull, dim=1)
        self._pull.zero_()
        self._tokens = 0

    def close(self, name: str, step: int, codebook: Tensor) -> CodebookRecord:
        """The record of the window, reduced over ranks, and a fresh start. Here the host waits for the device."""
        hits, distortion = self.over_ranks()
        nothing = torch.full_like(self.pull_norm, torch.nan)
        previous = self.last_codebook
        drift = nothing if previous is None else torch.linalg.vector_norm(codebook - previous, dim=1)
        record = CodebookRecord(
            codebook=name,
            step=step,
            window=self.steps,
            hits=on_host(hits),
            distortion=on_host((distortion / hits).float()),  # 0 / 0 = NaN: no hit, no distortion
            norm=on_host(torch.linalg.vector_norm(codebook, dim=1).float()),
            drift=on_host(drift.float()),
            grad_norm=on_host(self.grad_norm / (self.steps - self.skipped) if self.steps_with_gradient else nothing),
            pull_norm=on_host(self.pull_norm / self.steps),
            resets=on_host(self.resets),
        )
        self.last_codebook = codebook.clone()
        for total in (self.hits, self.distortion, self.pull_norm, self.grad_norm, self.resets):
            total.zero_()
        self.steps = self.steps_with_gradient = self.skipped = 0
        return record
