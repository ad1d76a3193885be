"""Activation checkpointing runs a forward a second time: how what counts forwards tells."""

import sys

import torch


def recomputing() -> bool:
    """Whether this forward is one that ``torch.utils.checkpoint`` repeats for the backward pass.

    It is one when a backward pass of this thread is under way, with ``use_reentrant`` or without. What adds up tokens
    in a forward has seen them then.
    """
    return torch._C._current_graph_task_id() != -1


def trains() -> bool:
    """Whether this forward is one that a model is trained by, seen once.

    Gradients are enabled in it, or it is the first pass of reentrant checkpointing, which disables them until the
    forward is repeated.
    """
    return not recomputing() and (torch.is_grad_enabled() or _checkpointed())


def _checkpointed() -> bool:
    frame = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_qualname.endswith("CheckpointFunction.forward"):
            return True
        frame = frame.f_back
    return False
