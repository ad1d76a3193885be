"""``vqtool explain``."""

from typing import Annotated

import typer


def explain(
    name: Annotated[str | None, typer.Argument(help="Name of a check, as findings give it. None: list them.")] = None,
) -> None:
    """Tell what a check of the lint asks, how it measures, and what to do about it.

    Example: vqtool explain straight-through
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from ..diagnostics.errors import unknown
    from ..diagnostics.wiring.checks import CHECKS
    from ..diagnostics.wiring.explain import explained, table

    if name is None:
        width = max(map(len, CHECKS))
        for check, question in table():
            typer.echo(f"{check:{width}}  {question}")
        return
    if name not in CHECKS:
        raise unknown("check", name, CHECKS)
    Console(width=min(100, Console().width)).print(Markdown(f"# {name}\n\n{explained(CHECKS[name])}"))
