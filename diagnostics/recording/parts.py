"""Folders of Parquet parts that grow while a run goes on, and lose nothing of it.

A part is named by its last step, so that the names sort in time. Each is written beside its place and renamed into it,
so that a kill at any moment leaves whole parts only.
"""

import atexit
import concurrent.futures.thread  # noqa: F401  pyarrow imports it by way of pandas, which at exit is too late
import os
import re
import sys
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from .parquet import column_names, read_columns, write_table

_PART = re.compile(r"part-(\d+)\.parquet")

T = TypeVar("T")


def parts_of(folder: Path) -> list[Path]:
    """The parts in a folder, in time; none where there is no such folder."""
    return sorted(path for path in folder.iterdir() if _PART.fullmatch(path.name)) if folder.is_dir() else []


def last_step(folder: Path) -> int | None:
    """The last step of the parts in a folder, None where it has none."""
    return max((int(part.stem.removeprefix("part-")) for part in parts_of(folder)), default=None)


def rewind_parts(folder: Path, step: int) -> None:
    """Drop every row after ``step``.

    Raises:
        InputError: A part cannot be read.
    """
    for part in parts_of(folder):
        table = read_columns(part, column_names(part))
        keep = table.filter(pc.field("step") <= step)
        if keep.num_rows == table.num_rows:
            continue
        if keep.num_rows:
            write_part(folder, keep)
        part.unlink()


def remove_parts(folder: Path) -> None:
    """Remove the parts of a folder, and the folder where nothing else is in it."""
    for part in parts_of(folder):
        part.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def write_part(folder: Path, table: pa.Table) -> None:
    """Write rows as one part; their steps never fall."""
    write_table(table, folder / f"part-{table['step'][-1].as_py():010d}.parquet", compression="zstd")


class PartWriter(ABC, Generic[T]):
    """Appends items to ``folder``, one part per flush.

    What is pending is written after a while without being asked, from a thread of its own, and when the interpreter
    exits. In another process, a worker that was forked or that a pickle was sent to, it begins empty: what was pending
    is written by the process that it was handed to.

    Args:
        folder: Made with its parents.
        rows_per_part: Rows after which a part is written without being asked.
        seconds_per_part: Seconds after which one is, so that a run can be looked at while it goes on.
    """

    def __init__(self, folder: Path, rows_per_part: int = 1 << 18, seconds_per_part: float = 10.0):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rows_per_part = rows_per_part
        self.seconds_per_part = seconds_per_part
        self._process: int | None = None
        self._begin_here()

    @abstractmethod
    def _table(self, items: Sequence[T]) -> pa.Table:
        """The rows of some items, with a column ``step`` that never falls."""

    @abstractmethod
    def _rows(self, item: T) -> int:
        """How many rows an item has."""

    def _begin_here(self) -> None:
        """Begin empty, where that has not been done in this process."""
        if self._process != os.getpid():
            self._process = os.getpid()
            self._lock = threading.RLock()  # not Lock: a garbage collection within a flush may ask for another
            self._timer: threading.Timer | None = None
            self._pending: list[T] = []
            self._rows_pending = 0
            _writers.add(self)

    def __getstate__(self) -> dict[str, Any]:
        here = ("_lock", "_timer", "_pending", "_rows_pending")
        return {name: value for name, value in vars(self).items() if name not in here} | {"_process": None}

    def write(self, item: T) -> None:
        """Keep an item for the next part."""
        self._begin_here()
        with self._lock:
            self._pending.append(item)
            self._rows_pending += self._rows(item)
            if self._rows_pending >= self.rows_per_part:
                self.flush()
            elif self._timer is None:
                self._flush_later()

    def _flush_later(self) -> None:
        self._timer = threading.Timer(self.seconds_per_part, self.flush)
        self._timer.daemon = True  # who exits does not wait for it: ``_flush_at_exit`` writes
        try:
            self._timer.start()
        except RuntimeError:  # an interpreter that is about to end takes no new threads
            self.flush()

    def flush(self) -> None:
        """Write what is pending as one part."""
        self._begin_here()
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            pending, self._pending = self._pending, []
            if not pending:
                return
            try:
                write_part(self.folder, self._table(pending))
            except BaseException:
                self._pending = pending + self._pending  # a full disk may be emptied
                raise
            self._rows_pending = 0


#: Those that may have something to write. One with a timer is kept alive by it until that has gone off.
_writers: weakref.WeakSet[PartWriter] = weakref.WeakSet()


def flush_below(folder: Path) -> None:
    """Write what is pending in this process for folders in ``folder``, also of those who left it without a word."""
    for writer in list(_writers):
        if writer.folder.resolve().is_relative_to(folder.resolve()):
            writer.flush()


@atexit.register
def _flush_at_exit() -> None:
    for writer in list(_writers):
        try:
            writer.flush()
        except Exception as error:  # the others are to be written all the same
            print(f"vqtool: the last records of {writer.folder} were not written: {error}", file=sys.stderr)
