"""Probes: how the instrument reads quantizers that it does not own."""

from torch import nn

from ..errors import InputError
from .base import CodebookReading, Probe
from .quantizer_output import QuantizerOutputProbe
from .vector_quantize_pytorch import VectorQuantizeProbe

#: Every probe by the family that it reads. The first that matches a module is taken.
PROBES: dict[str, Probe] = {
    "quantizer_output": QuantizerOutputProbe(),
    "vector_quantize_pytorch": VectorQuantizeProbe(),
}


def find_codebooks(model: nn.Module) -> dict[str, tuple[nn.Module, Probe]]:
    """The quantizers in ``model`` that a probe recognises, by their path in it (``codebook`` for the model itself).

    Raises:
        InputError: There is none.
    """
    found = {}
    for path, module in model.named_modules():
        probe = next((probe for probe in PROBES.values() if probe.matches(module)), None)
        if probe is not None:
            found[path or "codebook"] = (module, probe)
    if not found:
        raise InputError(
            f"no quantizer recognised in {type(model).__name__}; probes exist for the families {', '.join(PROBES)}"
        )
    return found


__all__ = ["PROBES", "CodebookReading", "Probe", "find_codebooks"]
