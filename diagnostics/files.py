"""Files that are there whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, beside: Path | None = None) -> Iterator[Path]:
    """A place to write to that becomes ``path`` when the block ends; readers see the old file or the new one.

    Args:
        path: Where the file is to be.
        beside: The place, on the same disk; by default a hidden name that the next attempt writes over. Where several
            processes may write the same file, each needs one of its own.
    """
    beside = beside or path.with_name(f".{path.name}.tmp")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, whole or not at all."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")
