"""From a folder of runs to a page."""

from collections.abc import Callable
from pathlib import Path

from ..diagnostics.run import find_runs
from .ablation_page import write_ablation_page
from .facts import RunFacts
from .run_page import write_run_page


def silent(_message: str) -> None:
    """Tell nobody."""


def write_report(folder: Path, progress: Callable[[str], None] = silent) -> Path:
    """Write ``folder/report``: ``index.html``, ``figures/`` (PNG, SVG) and ``tables/`` (CSV, Markdown, LaTeX).

    Args:
        folder: A run, or a folder with several runs in it, which are then compared.
        progress: Called with a short line before each step that takes time.

    Returns:
        The page.

    Raises:
        InputError: There is no run in ``folder``, or a file of a run cannot be read.
    """
    folder = Path(folder)
    runs = find_runs(folder)
    (folder / "report").mkdir(exist_ok=True)
    if len(runs) == 1:
        return write_run_page(RunFacts(runs[0]), folder / "report", progress)
    return write_ablation_page(runs, folder / "report", progress)
