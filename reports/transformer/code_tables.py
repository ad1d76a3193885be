"""Tables of single codes of a transformer: those that are sampled too often or too rarely, those learned worst."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ...diagnostics import stats
from ...diagnostics.recording.code_use import CodeUse


class Column(NamedTuple):
    """A column of a table of codes: its name in the CSV, its heading for people, and how a value is written there."""

    name: str
    heading: str
    pattern: str


COLUMNS = (
    Column("code", "Code", "{:d}"),
    Column("train_share", "Share of train", "{:.3%}"),
    Column("data_share", "Share of split", "{:.3%}"),
    Column("sampled_share", "Share of samples", "{:.3%}"),
    Column("total_variation", "Adds to total variation", "{:.4f}"),
    Column("tokens", "Tokens in split", "{:,d}"),
    Column("nll", "NLL (nats)", "{:.2f}"),
    Column("frequency_nll", "−ln p (nats)", "{:.2f}"),
    Column("excess", "NLL + ln p", "{:+.2f}"),
)


NOTE = "p: share of the training tokens. NLL + ln p at 0 and above: predicted no better than by frequency alone."


def code_frame(use: CodeUse) -> pd.DataFrame:
    """One row per code with the ``COLUMNS``; ``excess`` is NLL + ln p_train: at 0 and above, never learned."""
    columns = {
        "code": np.arange(len(use.train)),
        "train_share": stats.frequencies(use.train),
        "data_share": stats.frequencies(use.data),
        "sampled_share": stats.frequencies(use.sampled),
        "total_variation": use.gap,
        "tokens": use.data,
        "nll": use.nll,
        "frequency_nll": use.frequency_nll,
        "excess": use.nll - use.frequency_nll,
    }
    return pd.DataFrame(columns)


def largest_gaps(use: CodeUse, most: int = 20) -> pd.DataFrame:
    """The codes that add most to the total variation between the split and the samples."""
    frame = code_frame(use)
    return frame[frame["total_variation"] > 0].nlargest(most, "total_variation", keep="first")


def worst_learned(use: CodeUse, most: int = 20) -> pd.DataFrame:
    """The codes of the split whose NLL lies highest above what their training frequency alone would give."""
    return code_frame(use)[use.judged].nlargest(most, "excess", keep="first")


def codes_for_people(frame: pd.DataFrame) -> pd.DataFrame:
    """Text cells; what is not there is a dash."""
    text = pd.DataFrame(index=frame.index)
    for name, heading, pattern in COLUMNS:
        text[heading] = [pattern.format(value) if np.isfinite(value) else "–" for value in frame[name]]
    return text
