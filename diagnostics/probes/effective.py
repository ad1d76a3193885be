"""Codes that are made of a table by a module or a formula before they are used."""

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .attributes import tensors


def applied(transform: nn.Module, table: Tensor) -> Tensor:
    """The output of ``transform`` for a table of vectors, detached; module and random numbers stay as they are."""
    buffers = {name: buffer.clone() for name, buffer in transform.named_buffers()}
    devices = [table.device] if table.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices):
        return functional_call(transform, buffers, (table.detach(),))


def affine(module: nn.Module, table: Tensor) -> Tensor:
    """The image of lucidrains' ``affine_param``: a table (h, K, D) brought from its own moments to the batches'."""
    own = tensors(module)
    if not {"batch_mean", "batch_variance"} <= own.keys():  # there was no batch yet
        return table
    of_batch, of_codes = (own[name].clamp(min=1e-5).sqrt() for name in ("batch_variance", "codebook_variance"))
    return (table - own["codebook_mean"]) * (of_batch / of_codes) + own["batch_mean"]
