"""From a folder of runs to a page."""

from collections.abc import Callable
from pathlib import Path

from ..diagnostics.run import find_runs
from .codebook.run_page import write_run_page
from .comparison.quantizers_page import write_ablation_page
from .comparison.stages_page import write_stages_page
from .page.facts import RunFacts
from .transformer.run_page import write_transformer_page


def silent(_message: str) -> None:
    """Tell nobody."""


def write_report(folder: Path, progress: Callable[[str], None] = silent) -> Path:
    """Write ``folder/report``: ``index.html``, ``figures/`` (PNG, SVG) and ``tables/`` (CSV, Markdown, LaTeX).

    Args:
        folder: A run of either stage, or a folder with several runs in it, which are then compared.
        progress: Called with a short line before each step that takes time.

    Returns:
        The page.

    Raises:
        InputError: There is no run in ``folder``, or a file of a run cannot be read.
    """
    folder = Path(folder)
    runs = find_runs(folder)
    report = folder / "report"
    report.mkdir(exist_ok=True)
    facts = [RunFacts(run) for run in runs]
    if len(facts) == 1:
        write_page = write_transformer_page if facts[0].is_transformer else write_run_page
        return write_page(facts[0], report, progress)
    write_pages = write_stages_page if any(fact.is_transformer for fact in facts) else write_ablation_page
    return write_pages(runs, report, progress)
