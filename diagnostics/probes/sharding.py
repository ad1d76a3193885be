"""Codes that no one process holds whole."""

from torch import nn

from ..errors import InputError


def check_whole(model: nn.Module, quantizer: nn.Module) -> None:
    """Raise where the tensors of ``quantizer`` are sharded over processes.

    Args:
        model: The whole model, whose wrappers may shard it.
        quantizer: A module in it.

    Raises:
        InputError: By FSDP or ZeRO-3, with what to do about it.
    """
    advice = "leave the quantizer out of the sharding (ignored_modules, or ZeRO stage 2)"
    for module in model.modules():
        wraps = any(kind.__name__ == "FullyShardedDataParallel" for kind in type(module).__mro__)
        if wraps and any(part is quantizer for part in module.modules()) and any(True for _ in quantizer.parameters()):
            raise InputError(f"its parameters are sharded by FullyShardedDataParallel; {advice}")
    for parameter in quantizer.parameters():
        if any(kind.__name__ == "DTensor" for kind in type(parameter).__mro__):
            raise InputError(f"its parameters are sharded (DTensor); {advice}")
        if hasattr(parameter, "ds_id"):
            raise InputError(f"its parameters are sharded by ZeRO stage 3; {advice}")
