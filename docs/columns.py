"""Writes the tables of columns in trace.md from the code: ``python docs/columns.py``. A test holds the page to it."""

import inspect
import re
from pathlib import Path

from vqtool.diagnostics.recording.records import CodebookRecord, Record, TokenRecord
from vqtool.diagnostics.recording.rows import TABLES, Row

PAGE = Path(__file__).with_name("trace.md")
#: Units of the columns of records, which have their meaning in the docstring of their class.
UNITS = {
    "hits": "tokens",
    "distortion": "latent^2",
    "norm": "latent",
    "drift": "latent",
    "grad_norm": "loss / latent",
    "pull_norm": "loss / latent",
    "resets": "resets",
    "targets": "tokens",
    "nll": "nats",
    "embedding_norm": "1",
    "embedding_grad_norm": "loss",
    "head_norm": "1",
    "head_grad_norm": "loss",
}


def meanings(kind: type[Record]) -> dict[str, str]:
    """What the docstring of a kind of record says of each of its columns."""
    attributes = (inspect.getdoc(kind) or "").split("Attributes:")[1]
    told = re.findall(r"^ {4}(\w+): (.*(?:\n {5,}.*)*)", attributes, re.MULTILINE)
    lines = {name: " ".join(text.split()).removeprefix("(K,) ") for name, text in told}
    return {name: lines[name] for name in kind.columns()}


def record_table(kind: type[Record]) -> str:
    """The columns of a trace."""
    kinds = {name: dtype.__name__ for name, dtype in kind.columns().items()}
    rows = [(f"`{name}`", kinds[name], UNITS[name], text) for name, text in meanings(kind).items()]
    return table(("column", "type", "unit", "meaning"), rows)


def row_table(kind: type[Row]) -> str:
    """The columns of a table of rows, below when they are measured."""
    rows = [(f"`{name}`", unit, meaning) for name, (unit, meaning) in kind.columns().items()]
    return f"Measured: {kind.cost}.\n\n" + table(("column", "unit", "meaning"), rows)


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in (heads, ("---",) * len(heads), *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def parts() -> dict[str, str]:
    """What stands between the markers of the page, by their names."""
    records = {"CodebookRecord": CodebookRecord, "TokenRecord": TokenRecord}
    return {name: record_table(kind) for name, kind in records.items()} | {
        name: row_table(kind) for name, kind in TABLES.items()
    }


def filled(page: str) -> str:
    """The page with every part as the code says it."""
    for name, text in parts().items():
        start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
        before, rest = page.split(start)
        page = f"{before}{start}\n\n{text}\n\n{end}{rest.split(end)[1]}"
    return page


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
