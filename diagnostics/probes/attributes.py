"""What can be seen of a stranger's module without asking it: no property runs, nothing is computed or cached."""

import re

from torch import Tensor, nn

_COUNTS = re.compile("cluster|usage|count")
_TOTALS = re.compile("avg|sum")
_TABLES = re.compile("^_?(embed(ding)?s?|codebooks?)$")


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """The module's own parameters, buffers and tensors among its plain attributes, by name."""
    own = vars(module)
    places = (own.get("_parameters", {}), own.get("_buffers", {}), own)
    return {name: value for place in places for name, value in place.items() if isinstance(value, Tensor)}


def tensor(module: nn.Module, name: str) -> Tensor:
    """The module's own tensor of that name as it is now, for some modules put a new one in its place."""
    own = vars(module)
    for place in (own.get("_parameters", {}), own.get("_buffers", {}), own):
        value = place.get(name)
        if isinstance(value, Tensor):
            return value
    raise KeyError(name)


def children(module: nn.Module) -> dict[str, nn.Module]:
    """The module's direct children by name."""
    return {name: child for name, child in vars(module).get("_modules", {}).items() if child is not None}


def child_named(module: nn.Module, *names: str) -> nn.Module | None:
    """The first of these children that the module has."""
    own = children(module)
    return next((own[name] for name in names if name in own), None)


def has_method(module: nn.Module, name: str) -> bool:
    """Whether the module's class has such a method; ``forward`` counts where the class wrote one."""
    method = getattr(type(module), name, None)
    return callable(method) and method is not nn.Module.forward


def statistics(module: nn.Module) -> tuple[str, str] | None:
    """The names of the codes and of the counts of a codebook that keeps its own statistics, None for any other module.

    Such a module has a count of each code (K,) or (heads, K) and at least one table of vectors (K, D) or (heads, K, D)
    that no gradient reaches. Where every table is a sum or an average, the codes are that over the counts.
    """
    own = {name: value for name, value in tensors(module).items() if value.is_floating_point()}
    for counts, count in own.items():
        if not _COUNTS.search(counts) or count.requires_grad or count.ndim not in (1, 2):
            continue
        books = {name: value for name, value in own.items() if value.ndim == count.ndim + 1}
        books = {name: value for name, value in books.items() if value.shape[:-1] == count.shape}
        if any(not book.requires_grad for book in books.values()):
            # A name with an underscore in front is a cache, which may be gone in the next forward.
            codes = [name for name in books if not is_total(name) and not name.startswith("_")]
            return (codes or [name for name in books if is_total(name)] or [*books])[0], counts
    return None


def is_total(name: str) -> bool:
    """Whether a table of that name holds sums of vectors, not codes."""
    return bool(_TOTALS.search(name))


def table_child(module: nn.Module) -> nn.Module | None:
    """The child that holds a table of vectors (K, D) as its ``weight``."""
    for name, child in children(module).items():
        weight = tensors(child).get("weight")
        if _TABLES.match(name) and weight is not None and weight.ndim == 2 and not isinstance(child, nn.Linear):
            return child
    return None
