"""Which codebooks a model has, and which of its modules look like quantizers but are not read."""

from collections.abc import Iterator

from torch import nn

from ..errors import InputError
from .base import Probe, WatchedCodebook
from .quantizer_output import QuantizerOutputProbe
from .vector_quantize_pytorch import VectorQuantizeProbe

#: Every probe by the convention that it reads. The first that matches a module is taken.
PROBES: dict[str, Probe] = {
    "quantizer_output": QuantizerOutputProbe(),
    "vector_quantize_pytorch": VectorQuantizeProbe(),
}

#: What wrappers put in front of the paths of a model's modules.
_WRAPPERS = ("module", "_orig_mod", "_forward_module")


class FoundCodebooks(dict[str, WatchedCodebook]):
    """The codebooks of a model by their names, which are their paths in it.

    Attributes:
        unread: What looks like a quantizer and is not read: path -> why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unread: dict[str, str] = {}

    def __str__(self) -> str:
        watched = [f"watched: {name}, {codebook.size:,} codes" for name, codebook in self.items()]
        return "\n".join(watched + [f"not watched: {path}, {why}" for path, why in self.unread.items()])


def find_codebooks(model: nn.Module) -> FoundCodebooks:
    """What would be watched of ``model``, and what not.

    A name is the quantizer's path in the model, without what DDP, Fabric and ``torch.compile`` put in front;
    ``codebook`` is the model itself.

    Raises:
        InputError: No quantizer is recognised, or none that can be read.
    """
    found = FoundCodebooks()
    for path, module in _outermost(model):
        name = ".".join(part for part in path.split(".") if part not in _WRAPPERS)
        probe = next((probe for probe in PROBES.values() if probe.matches(module)), None)
        if probe is None:
            continue
        try:
            for rest, codebook in probe.codebooks(module).items():
                found[".".join(part for part in (name, rest) if part) or "codebook"] = codebook
        except InputError as error:
            found.unread[name] = str(error)
    if not found:
        raise InputError(_nothing(model, found))
    return found


def _outermost(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of the model, without those inside one that a probe matches."""
    inside: set[nn.Module] = set()
    for path, module in model.named_modules():
        if module not in inside:
            if any(probe.matches(module) for probe in PROBES.values()):
                inside.update(module.modules())
            yield path, module


def _nothing(model: nn.Module, found: FoundCodebooks) -> str:
    kind = type(model).__name__
    if found.unread:
        return f"no quantizer of {kind} can be read: " + "; ".join(
            f"{path}: {why}" for path, why in found.unread.items()
        )
    return f"no quantizer recognised in {kind}; probes exist for the conventions {', '.join(PROBES)}"
