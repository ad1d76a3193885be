"""Activation checkpointing runs a forward a second time: how what counts forwards tells."""

import torch


def recomputing() -> bool:
    """Whether this forward is one that ``torch.utils.checkpoint`` repeats for the backward pass.

    It is one when a backward pass of this thread is under way, with ``use_reentrant`` or without. What adds up tokens
    in a forward has seen them then.
    """
    return torch._C._current_graph_task_id() != -1
