"""Checkpoints: written whole or not at all, read without running anything from them."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...diagnostics.errors import InputError
from ...diagnostics.files import replacing


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` beside ``path`` and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as beside:
        torch.save(state, beside)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint on the CPU: tensors and plain values only, no code.

    Raises:
        InputError: There is no such file, or it is not a checkpoint.
    """
    if not path.is_file():
        raise InputError(f"no checkpoint {path}: the run has not come that far")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise errors of every kind, an IndexError or a KeyError among them
        reason = f"it is damaged, or holds more than tensors and plain values ({type(error).__name__})"
        raise InputError(f"cannot read checkpoint {path}: {reason}") from None
    if not isinstance(state, dict):
        raise InputError(f"cannot read checkpoint {path}: it holds a {type(state).__name__}, not names and values")
    return state


def load_weights(module: nn.Module, weights: dict[str, Any], source: Path) -> None:
    """Load ``weights`` into ``module``, all of them.

    Raises:
        InputError: A name that the module demands is missing, or one is too many, or a shape differs: the first such,
            named. Nothing has been loaded then.
    """
    own = module.state_dict()
    # The module loads from itself what it would find in the weights, and says what it cannot do without beside that.
    demanded = module.load_state_dict({name: own[name] for name in own if name in weights}, strict=False).missing_keys
    for name in sorted(weights.keys() | demanded):
        if name not in weights:
            raise InputError(f"checkpoint {source} lacks {name!r}: it was made with another model")
        if name not in own:
            raise InputError(f"checkpoint {source} has {name!r}, which this model lacks")
        if own[name].shape != weights[name].shape:
            raise InputError(
                f"checkpoint {source} is of another shape: {name!r} is {tuple(weights[name].shape)} there "
                f"and {tuple(own[name].shape)} here"
            )
    module.load_state_dict(weights)
