"""From files and options to the settings of a second stage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...diagnostics.errors import InputError
from ..settings import build_config, load_config, merge, validated
from .config import TransformerConfig


def build_transformer_config(tree: Mapping[str, Any]) -> TransformerConfig:
    """The settings of a second stage from a tree; data and codebook size are those of the first, where not given.

    Raises:
        InputError: There is no first stage, or see ``validated``.
    """
    if tree.get("first_stage") is None:
        raise InputError("a transformer needs a finished first stage: name its run with --from RUN")
    file = Path(str(tree["first_stage"])) / "config.yaml"
    if not file.is_file() and "codebook_size" not in tree:
        raise InputError(f"first stage {file.parent} is not a run: it has no config.yaml")
    return validated(TransformerConfig, merge(_of_first_stage(file) if file.is_file() else {}, tree))


def _of_first_stage(file: Path) -> dict[str, Any]:
    tree = load_config(file)
    if tree.get("stage", "vqgan") != "vqgan":
        raise InputError(f"first stage {file.parent} is a run of the stage {tree['stage']!r}: give one of vqgan")
    config = build_config(tree)
    data = config.data.model_dump(mode="json")
    return {"data": data, "codebook_size": config.quantizer.codebook_size}
