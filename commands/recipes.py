"""``vqtool recipes``."""

import typer


def recipes() -> None:
    """List the named configs with their price.

    Example: vqtool recipes
    """
    from ..experiments.recipes import RECIPES

    for name, recipe in RECIPES.items():
        typer.echo(f"{name} ({recipe.stage})\n  {recipe.about}\n  Price: {recipe.price}")
