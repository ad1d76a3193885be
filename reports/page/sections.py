"""The page: its parts, and how they become files."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from matplotlib.figure import Figure
from PIL import Image

from ...diagnostics.files import write_atomically
from .style import DPI, theme
from .tables import for_people, write_cells


@dataclass(frozen=True)
class Panel:
    """A figure with what to see in it.

    Attributes:
        name: Stem of its files.
        title: Its heading on the page.
        caption: What to see, with window and sample size.
        figure: The drawing.
        wide: Whether it takes the whole width of the page.
        photos: Whether it holds images, whose 256 colours are to be dithered; the flat colours of a drawing are not.
    """

    name: str
    title: str
    caption: str
    figure: Figure
    wide: bool = False
    photos: bool = False


@dataclass(frozen=True)
class SavedPanel:
    """A panel as the page holds it: the image in the page itself, and the names of its files."""

    name: str
    title: str
    caption: str
    wide: bool
    source: str


@dataclass(frozen=True)
class Table:
    """Text cells with footnotes; ``files`` are links relative to the page."""

    title: str
    heads: list[str]
    rows: list[list[str]]
    notes: list[str]
    files: list[str]


@dataclass(frozen=True)
class Card:
    """One of the numbers at the top: a value, what it is, and what it was measured over."""

    value: str
    label: str
    over: str


@dataclass
class Section:
    """A part of the page under a heading.

    ``missing`` says plainly what could not be shown, and why; of a ``folded`` one figures and tables are shown when the
    reader unfolds them.
    """

    title: str
    text: list[str] = field(default_factory=list)
    links: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    cards: list[Card] = field(default_factory=list)
    findings: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[SavedPanel] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    verbatim: str = ""
    folded: bool = False


def hang(panels: Iterable[Panel], folder: Path) -> list[SavedPanel]:
    """Save each panel as ``folder/figures/<name>.png`` and ``.svg`` as soon as it is drawn, and keep its image only."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    pictures = []
    for panel in panels:
        png = figures / f"{panel.name}.png"
        with theme():
            panel.figure.savefig(png, dpi=DPI)
            panel.figure.savefig(figures / f"{panel.name}.svg", dpi=DPI, metadata={"Date": None})
        source = _embedded(png, panel.photos)
        pictures.append(SavedPanel(panel.name, panel.title, panel.caption, panel.wide, source))
    return pictures


def _embedded(png: Path, photos: bool) -> str:
    """A data URI of the image in 256 colours, a third of the size of the file and the same to the eye."""
    buffer = BytesIO()
    with Image.open(png) as file:
        image = file.convert("RGB")
    # Maximum coverage keeps colours that few pixels have, such as a lone code's or the ends of a colour scale.
    few = image.quantize(256, Image.Quantize.MAXCOVERAGE)
    shown = image.quantize(palette=few, dither=Image.Dither.FLOYDSTEINBERG) if photos else few
    shown.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def lay(frame: pd.DataFrame, title: str, name: str, folder: Path) -> Table:
    """Write ``frame`` as ``folder/tables/<name>.csv``, ``.md`` and ``.tex`` and lay it out for the page."""
    return lay_cells(frame, *for_people(frame), title, name, folder)


def lay_cells(frame: pd.DataFrame, text: pd.DataFrame, notes: list[str], title: str, name: str, folder: Path) -> Table:
    """As ``lay``, with ``text`` cells and ``notes`` of their own; the CSV holds ``frame``."""
    files = write_cells(frame, text, notes, folder / "tables" / name)
    return Table(title, list(text.columns), text.to_numpy().tolist(), notes, [f"tables/{path.name}" for path in files])


def write_page(folder: Path, title: str, subtitle: str, sections: Sequence[Section]) -> Path:
    """Render ``page.html`` to ``folder/index.html``: one file that needs no other and no network."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = folder / "index.html"
    html = environment.get_template("page.html").render(title=title, subtitle=subtitle, sections=sections)
    write_atomically(page, html)
    return page
