"""``vqtool measure``."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from .measured import Counting, numbers, tell

#: Tokens from which on progress is shown.
MANY = 20_000_000


def measure(
    indices: Annotated[Path, typer.Option(metavar="FILE", help="Codes: .npy, .npz, .pt, .pth or .parquet.")],
    codes: Annotated[
        str | None,
        typer.Option(metavar="K[,K...]", help="K, or that of each layer.  [default: largest index + 1, or more]"),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="AXIS,AXIS,...",
            help="What each axis is: images (or items, or clips), layers, tokens.  [default: images,tokens,...]",
        ),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Array, tensor or column of a file with several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Measure the use of a codebook by tokens in a file, without a model. An index of -1 is no code.

    Example: vqtool measure --indices tokens.npy --codes 16384

    Example: vqtool measure --indices semantic_ids.parquet --codes 256 --layout items,layers

    Example: vqtool measure --indices audio_codes.pt --codes 1024 --layout layers,clips,tokens
    """
    from ..diagnostics.recording.measure_tokens import measure_tokens
    from ..diagnostics.recording.token_files import read_tokens
    from ..diagnostics.recording.token_layout import TokenLayout

    sizes = None if codes is None else _sizes(codes)
    tokens = TokenLayout.of(read_tokens(indices, key), layout)
    with _counting(tokens.units, shown=tokens.tokens.size >= MANY and not as_json) as advance:
        measured = measure_tokens(tokens, sizes, indices.name, advance)
    if as_json:
        typer.echo(json.dumps(numbers(tokens, measured), indent=2, allow_nan=False))
    else:
        tell(indices.name, tokens, measured)


def _sizes(codes: str) -> list[int]:
    from ..diagnostics.errors import InputError

    words = [word.strip().replace("_", "") for word in codes.split(",")]
    if not all(word.isdecimal() and int(word) for word in words):
        raise InputError(
            f"--codes {codes!r} should be whole numbers from 1 on with commas between them, as in 256,256,512"
        )
    return [int(word) for word in words]


@contextmanager
def _counting(units: int, shown: bool) -> Iterator[Counting]:
    from ..diagnostics.progress import progress

    if not shown:
        yield lambda done: None
        return
    with progress("counting", units) as advance:
        yield advance
