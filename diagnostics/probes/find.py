"""Which codebooks a model has, and which of its modules look like quantizers but are not read."""

import re
from collections.abc import Mapping
from difflib import get_close_matches

from torch import nn

from ..errors import InputError, unknown
from .attributes import children, statistics, tensors
from .base import Probe, WatchedCodebook
from .gumbel import GumbelGroupsProbe, GumbelTableProbe
from .inner_codebook import InnerCodebookProbe
from .latent_values import LatentValuesProbe
from .levels import BitsProbe, LevelsProbe
from .methods import MethodsProbe
from .projected import ProjectedProbe
from .quantizer_output import QuantizerOutputProbe
from .random_projection import RandomProjectionProbe
from .reader import Reader, ReaderCodebook
from .residual import ResidualProbe
from .residual_levels import ResidualLevelsProbe
from .sharding import check_whole
from .tables import BufferProbe, FactorisedProbe, TableProbe

#: Every probe by the convention that it reads. The first that matches a module is taken.
PROBES: dict[str, Probe] = {
    "quantizer_output": QuantizerOutputProbe(),
    "residual": ResidualProbe(),
    "inner_codebook": InnerCodebookProbe(),
    "random_projection": RandomProjectionProbe(),
    "methods": MethodsProbe(),
    "latent_values": LatentValuesProbe(),
    "residual_levels": ResidualLevelsProbe(),
    "levels": LevelsProbe(),
    "bits": BitsProbe(),
    "projected": ProjectedProbe(),
    "gumbel_table": GumbelTableProbe(),
    "gumbel_groups": GumbelGroupsProbe(),
    "factorised": FactorisedProbe(),
    "table": TableProbe(),
    "buffer": BufferProbe(),
}

#: What wrappers put in front of the paths of a model's modules.
_WRAPPERS = ("module", "_orig_mod", "_forward_module")

_QUANTIZER_LIKE = re.compile("[Qq]uanti[sz](e(?!d)|at)|[Cc]odebook|VQ|FSQ|LFQ|BSQ")
_CODEBOOK_LIKE = re.compile("^_?codebooks?$")

_HOW = "pass read={%r: Reader(...)} to read it"


class FoundCodebooks(dict[str, WatchedCodebook]):
    """The codebooks of a model by their names, which are their paths in it.

    Attributes:
        unread: What looks like a quantizer and is not read: path -> why.
    """

    def __init__(self) -> None:
        super().__init__()
        self.unread: dict[str, str] = {}

    def drop(self, name: str, why: str) -> None:
        """No longer watch a codebook that turned out to be none."""
        del self[name]
        self.unread[name] = why

    def __str__(self) -> str:
        watched = [f"watched: {name}, {codebook.size:,} codes" for name, codebook in self.items()]
        return "\n".join(
            watched + [f"not watched: {path or 'the model itself'}, {why}" for path, why in self.unread.items()]
        )


def recognised() -> list[tuple[str, str]]:
    """Each convention that is recognised, with what it reads in a few words."""
    return [(name, probe.reads) for name, probe in PROBES.items()]


def find_codebooks(model: nn.Module, read: Mapping[str, Reader] | None = None) -> FoundCodebooks:
    """What would be watched of ``model``, and what not. Nothing of it is called, computed or changed.

    A name is the quantizer's path in the model, without what DDP, Fabric and ``torch.compile`` put in front;
    ``codebook`` is the model itself. A module that stands at several paths has the first of them.

    Args:
        model: Any module.
        read: Readers by the paths of modules that are to be read by them, whatever they look like; ``""`` is the model
            itself.

    Raises:
        InputError: A path does not exist, nothing is recognised, or nothing that is recognised can be read.
    """
    modules = {unwrapped(path): module for path, module in model.named_modules()}
    readers = {unwrapped(path): reader for path, reader in (read or {}).items()}
    for path in readers.keys() - modules.keys():
        raise unknown("module", path, get_close_matches(path, modules, n=5, cutoff=0) if modules else [])
    found = FoundCodebooks()
    inside: set[nn.Module] = {part for path in readers for part in modules[path].modules()}
    for path, module in modules.items():
        if path in readers:
            check_whole(model, module)
            found[path or "codebook"] = ReaderCodebook(module, readers[path])
        elif module not in inside:
            probe = next((probe for probe in PROBES.values() if probe.matches(module)), None)
            if probe is not None:
                inside.update(module.modules())
                _add(found, model, path, module, probe)
    _add_unread(found, modules, inside)
    if not found:
        raise InputError(_nothing(model, found))
    return found


def unwrapped(path: str) -> str:
    """A path in the model without what DDP, Fabric and ``torch.compile`` put into it."""
    return ".".join(part for part in path.split(".") if part not in _WRAPPERS)


def _add(found: FoundCodebooks, model: nn.Module, path: str, module: nn.Module, probe: Probe) -> None:
    try:
        check_whole(model, module)
        for rest, codebook in probe.codebooks(module).items():
            found[".".join(part for part in (path, rest) if part) or "codebook"] = codebook
    except InputError as error:
        found.unread[path] = str(error)


def _add_unread(found: FoundCodebooks, modules: dict[str, nn.Module], inside: set[nn.Module]) -> None:
    """Tell of the innermost modules that look like quantizers and neither are in one that is read nor hold one."""
    candidates = {
        path: module for path, module in modules.items() if module not in inside and _looks_like_a_quantizer(module)
    }
    for path, module in candidates.items():
        within = {*module.modules()}
        if not within & inside and not any(other in within for other in candidates.values() if other is not module):
            found.unread[path] = f"{type(module).__name__} is of no convention that is known; {_HOW % path}"


def _looks_like_a_quantizer(module: nn.Module) -> bool:
    kind = type(module)
    # torch's own quantize numbers to few bits, not vectors to codes.
    named = _QUANTIZER_LIKE.search(kind.__name__) and kind.__module__.partition(".")[0] != "torch"
    holds = any(_CODEBOOK_LIKE.match(name) for name in (*tensors(module), *children(module)))
    return bool(named) or holds or statistics(module) is not None


def _nothing(model: nn.Module, found: FoundCodebooks) -> str:
    kind = type(model).__name__
    if found.unread:
        return f"no quantizer of {kind} can be read: " + "; ".join(
            f"{path or 'the model itself'}: {why}" for path, why in found.unread.items()
        )
    return (
        f"no quantizer recognised in {kind}; name its module yourself: read={{'path.to.module': "
        "Reader(latents=..., indices=..., codebook=...)}"
    )
