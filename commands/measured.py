"""What ``vqtool measure`` prints."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ..diagnostics.recording.layers import LayersMeasurement
    from ..diagnostics.recording.measure_tokens import TokensMeasurement
    from ..diagnostics.recording.token_layout import TokenLayout
    from ..diagnostics.stats import Usage

#: A table that is wider than the terminal is wrapped there, not cut.
_WIDTH = 120
Counting = Callable[[int], object]

#: A second axis of tokens as short as this may be one of layers.
_FEW = 8


def tell(name: str, tokens: "TokenLayout", measured: "TokensMeasurement") -> None:
    """Print a measurement for people."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True, width=_WIDTH)
    console.print(f"{name}: {tokens}, {tokens.tokens.dtype}", markup=False)
    for line in _notes(tokens, measured):
        console.print(f"  {line}", markup=False)
    if measured.layers is None:
        for head, text in _of_usage(measured.usage[0]):
            console.print(f"  {head:<14} {text}", markup=False)
    else:
        _tell_layers(console, measured)


def _notes(tokens: "TokenLayout", measured: "TokensMeasurement") -> list[str]:
    """What has to be known to read the numbers."""
    notes = []
    if not measured.codes_told:
        several = len(set(measured.codes)) > 1
        sizes = ", ".join(f"{K:,}" for K in measured.codes) if several else f"{measured.codes[0]:,}"
        notes.append(f"K is not told: at least {sizes}, so shares of K and ceilings are upper bounds; see --codes")
    if tokens.unit is None:
        notes.append("no intervals, for which tokens are of one image is not told; see --layout")
    if measured.layers is None and tokens.tokens.ndim == 2 and 1 < tokens.tokens.shape[1] <= _FEW:
        notes.append("layers of a residual quantizer, or semantic ids, take --layout items,layers")
    if any(measured.none):
        counted = ", ".join(f"{n:,}" for n in measured.none)
        notes.append(f"-1, which is no code, and not counted: {counted}" + (" by layer" if measured.layers else ""))
    return notes


def _of_usage(usage: "Usage") -> list[tuple[str, str]]:
    """Heads and texts about one codebook."""
    from ..diagnostics import stats

    told = [
        ("used", f"{usage.used:,.0f} of {usage.codes:,} codes by {usage.tokens:,} tokens: {usage.of_ceiling}"),
        ("in use", f"{_number(usage.chao1, 0)} codes at least (Chao1); coverage {stats.percent(usage.coverage)}"),
        ("perplexity", f"{_number(usage.perplexity, 1)}, corrected for few tokens {_corrected(usage)}"),
    ]
    if usage.units is not None and usage.intervals:
        told.append(("95 % intervals", f"over {usage.units.number:,} {usage.units.name}: {usage.intervals}"))
    if usage.shortfall:
        told.append(("no verdict", usage.shortfall))
    return told


def _corrected(usage: "Usage") -> str:
    return f"{_number(usage.corrected, 1)}{' (clamped to K)' if usage.clamped else ''}"


def _tell_layers(console: "Console", measured: "TokensMeasurement") -> None:
    layers = measured.layers
    assert layers is not None
    units = measured.usage[0].units
    over = "" if units is None else f", 95 % over {units.number:,} {units.name}"
    _table(console, "each layer alone", _alone(measured))
    _table(console, f"bits given the codes of the layers before{over}", _given(measured))
    for line in _together(layers):
        console.print(line, markup=False)
    for number, usage in enumerate(measured.usage):
        if usage.shortfall:
            console.print(f"no verdict on layer {number}: {usage.shortfall}", markup=False)


def _table(console: "Console", title: str, columns: dict[str, list[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="italic")
    for head in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    console.print(table)


def _alone(measured: "TokensMeasurement") -> dict[str, list[str]]:
    from ..diagnostics.stats import percent

    used = measured.usage
    return {
        "layer": [str(number) for number in range(len(used))],
        "tokens": [f"{one.tokens:,}" for one in used],
        "used": [f"{one.used:,.0f} of {one.codes:,}" for one in used],
        "of a ceiling": [f"{percent(one.share)} of {percent(one.ceiling / one.codes)}" for one in used],
        "coverage": [percent(one.coverage) for one in used],
        "Chao1": [_number(one.chao1, 0) for one in used],
        "perplexity": [_number(one.perplexity, 1) for one in used],
        "corrected": [_corrected(one) for one in used],
        "95 %": [_interval(one) for one in used],
    }


def _given(measured: "TokensMeasurement") -> dict[str, list[str]]:
    from ..diagnostics.stats import percent

    layers = measured.layers
    assert layers is not None
    given, alone = layers.conditional, layers.alone
    return {
        "layer": [str(number) for number in range(len(given))],
        "log2 K": [f"{most:.2f}" for most in layers.most_bits],
        "alone": [_number(one.plug_in, 2) for one in alone],
        "given those before": [layers.given(number) for number in range(len(given))],
        "plug-in": [_number(one.plug_in, 2) for one in given],
        "tokens": [f"{one.tokens:,}" for one in given],
        "prefixes": [f"{one.contexts:,}" for one in given],
        "coverage": [percent(one.coverage) for one in given],
    }


def _interval(usage: "Usage") -> str:
    """That of the perplexity."""
    if usage.units is None or usage.units.perplexity is None:
        return "-"
    low, high, bounded = usage.units.perplexity
    return f"{low:,.1f} to {high:,.1f}" if bounded else f"at least {low:,.1f}"


def _number(value: float, decimals: int) -> str:
    return "-" if math.isnan(value) else f"{value:,.{decimals}f}"


def _together(layers: "LayersMeasurement") -> list[str]:
    """What the layers do together, line by line."""
    from ..diagnostics.stats import percent

    found = layers.collisions
    left_out = f" ({found.incomplete:,} more have no code in some layer)" if found.incomplete else ""
    rate, shared = percent(found.rate), percent(found.shared)
    return [
        f"distinct tuples: {found.distinct:,} of {found.tokens:,} tokens{left_out}, at most {found.largest:,} alike",
        f"collision rate (1 - distinct / tokens): {rate}; tokens that share their tuple: {shared}",
        f"bits of the layers alone, over log2 K of all: {percent(layers.efficiency)}",
    ]


def numbers(tokens: "TokenLayout", measured: "TokensMeasurement") -> dict[str, Any]:
    """A measurement as JSON; what is not known is null. Perplexities are in codes, entropies in bits."""
    layers = measured.layers
    told = [_usage_numbers(usage, none) for usage, none in zip(measured.usage, measured.none, strict=True)]
    if layers is not None:
        for number, one in enumerate(told):
            one["entropy"] = layers.alone[number]._asdict()
            one["entropy_given_layers_before"] = layers.conditional[number]._asdict()
            one["log2_codes"] = layers.most_bits[number]
    together = {} if layers is None else layers.collisions._asdict() | {"efficiency": layers.efficiency}
    return _known(
        {
            "axes": [{"name": name, "size": size} for name, size in zip(tokens.axes, tokens.tokens.shape, strict=True)],
            "codes_told": measured.codes_told,
            "codebooks": told,
            "together": together or None,
        }
    )


def _usage_numbers(usage: "Usage", none: int) -> dict[str, Any]:
    units = usage.units
    return {
        "codes": usage.codes,
        "tokens": usage.tokens,
        "without_a_code": none,
        "codes_used": usage.used,
        "share": usage.share,
        "ceiling": usage.ceiling / usage.codes,
        "coverage": usage.coverage,
        "chao1": usage.chao1,
        "perplexity": usage.perplexity,
        "perplexity_corrected": usage.corrected,
        "perplexity_clamped": usage.clamped,
        "enough_for_a_verdict": usage.enough,
        "intervals": None
        if units is None
        else {
            "over": units.number,
            "unit": units.name,
            "codes_in_use": units.in_use and units.in_use._asdict(),
            "perplexity": units.perplexity and units.perplexity._asdict(),
        },
    }


def _known(value: Any) -> Any:
    """The same with null for every NaN."""
    if isinstance(value, dict):
        return {name: _known(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
