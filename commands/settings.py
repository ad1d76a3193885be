"""``vqtool settings``."""

from typing import Annotated

import typer

from .options import config_kinds


def settings(
    prefix: Annotated[
        str, typer.Argument(metavar="[PREFIX]", help="Only those that begin so, such as quantizer.gumbel.")
    ] = "",
    stage: Annotated[str, typer.Option(help="vqgan or transformer.")] = "vqgan",
) -> None:
    """List every setting with its default, its bounds and what it is.

    Example: vqtool settings optimizer
    """
    from rich.console import Console
    from rich.text import Text

    from ..diagnostics.errors import unknown
    from ..vqgan.config.listing import settings_below

    if stage not in (kinds := config_kinds()):
        raise unknown("stage", stage, kinds)
    console = Console(highlight=False, soft_wrap=True)
    for setting in settings_below(kinds[stage], prefix):
        console.print(Text(f"{setting.name} = {setting.default}", "bold"), Text(f"({setting.allowed})", "dim"))
        if setting.about:
            console.print(f"    {setting.about}", markup=False)
