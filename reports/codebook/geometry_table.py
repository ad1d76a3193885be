"""How latents and codes lie to each other at the first snapshot and at the last one: a table with what it says."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..page.sections import Table, lay_cells
from .measured import cell, there


class Reading(NamedTuple):
    """A row of the table: what a column is called, and what it says."""

    heading: str
    meaning: str


READINGS = {
    "scale": Reading(
        "Scale, |e| / |z|",
        "Around 1 the codes are where the latents are. Below 0.35 at step 0 they crowd at the origin.",
    ),
    "spread_ratio": Reading(
        "Spread of codes / of latents", "Around 1 both clouds are as wide. Above 2.5 at step 0 most codes lie outside."
    ),
    "offset": Reading(
        "Offset of the centres, in spreads",
        "Near 0 the clouds lie on each other. Above 2.2 at step 0 a few codes on the near side get all latents.",
    ),
    "effective_rank": Reading(
        "Effective rank of the latents",
        "Dimensions that the latents fill, of D. Below 3.3 (or 0.42 D) at step 0 the encoder is a bottleneck.",
    ),
    "effective_rank_used": Reading(
        "Effective rank of the used codes", "Far below that of the latents: the used codes span a part of them only."
    ),
    "cover": Reading(
        "Balls that cover the latents",
        "Of 0.3 spreads each. Far fewer than the codes (below 0.35 K, or of the sample) at step 0: few modes to code.",
    ),
    "identical": Reading(
        "Identical latents", "Near 0. Above 0.2 something is counted again and again, such as padding."
    ),
    "codes_reached": Reading(
        "Codes that are nearest to a latent", "Of K, in this sample: so many codes can be hit at all."
    ),
    "dead_reach": Reading(
        "Way from unhit codes to the latents, in errors",
        "Below 1 they lie among the data and lose to neighbours. Far above 1 no latent comes near them.",
    ),
    "duplicates": Reading("Duplicate codes", "Near 0. Above 0.3 at step 0 that share of the codebook is wasted."),
    "bias_share": Reading(
        "Share of the error that is lag",
        "Distance of the codes to the centroids of their latents. Above 0.3, after the start, the codes come too late.",
    ),
    "quantization_error": Reading(
        "Quantization error / variance of the latents", "0 is exact; 1 is as bad as one code at the centre for all."
    ),
    "metric": Reading("Distance that explains the codes best", "Should be the one that the quantizer is meant to use."),
    "float64_agreement": Reading(
        "Codes that are nearest, in float64", "1 for a quantizer that takes the nearest of these codes."
    ),
    "bfloat16_agreement": Reading(
        "Codes that are nearest, in bfloat16", "More than 0.03 above the row before: distances of low precision."
    ),
}
CHANGED_BY_FORWARD = (
    "A codebook that its own forward changes, such as an EMA, was not seen before the first one: which codes were"
    " nearest is not known at step 0, and the other figures there are of the codes after it."
)


def geometry_table(codebook: str, frame: pd.DataFrame, folder: Path) -> Table:
    """The first snapshot against the last one; one column where there is one snapshot."""
    first, last, single = frame.iloc[0], frame.iloc[-1], len(frame) == 1
    names = [name for name in READINGS if there(frame.iloc[[0, -1]], name)]
    columns = {"Quantity": [READINGS[name].heading for name in names]}
    columns[f"Step\u00a0{frame.index[0]:,}"] = [cell(first[name]) for name in names]
    if not single:
        columns[f"Step\u00a0{frame.index[-1]:,}"] = [cell(last[name]) for name in names]
        columns["Change"] = [_change(first[name], last[name]) for name in names]
    columns["What it says"] = [READINGS[name].meaning for name in names]
    notes = [
        f"Samples of {last['sample']:,.0f} latents of one forward; a step counts those taken before, 0 is the first"
        " forward that was seen. Limits are indications from small models (128 to 256 codes, 8 to 16 dimensions), and"
        " tell only beside a codebook that is used badly.",
    ]
    if pd.isna(first["float64_agreement"]) and frame.index[0] == 0:
        notes.append(CHANGED_BY_FORWARD)
    full = frame[["sample", *names]].reset_index()
    return lay_cells(full, pd.DataFrame(columns), notes, "Geometry", f"{codebook}-geometry", folder)


def _change(first: Any, last: Any) -> str:
    if isinstance(first, str) or isinstance(last, str):
        return "same" if first == last else "another"
    if pd.isna(first) or pd.isna(last):
        return "–"
    before, now = float(first), float(last)
    if before == now:
        return "same"
    factor = now / before if before else np.inf
    return f"× {factor:.2g}" if 0.005 < factor < 1000 else f"{now - before:+.2g}"
