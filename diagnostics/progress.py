"""How long commands tell how far they are: a bar in a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

Item = TypeVar("Item")


class Advance(Protocol):
    """Tells that the work stands at ``done``, with figures worth seeing."""

    def __call__(self, done: int, figures: str = "") -> None: ...


@contextmanager
def progress(task: str, total: int, *, start: int = 0, seconds_between_lines: float = 10.0) -> Iterator[Advance]:
    """Show the progress of ``task`` towards ``total`` while the block runs.

    Args:
        task: What is being done.
        total: Where it ends.
        start: Where it begins, for work that goes on from an earlier time.
        seconds_between_lines: How often a line is printed where there is no terminal. The first and the last are.
    """
    from rich.console import Console

    console = Console(stderr=True)
    show = (
        _bar(console, task, total, start) if console.is_terminal else _lines(task, total, start, seconds_between_lines)
    )
    with show as advance:
        yield advance


@contextmanager
def _bar(console: "Console", task: str, total: int, start: int) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console) as bar:
        identity = bar.add_task(task, total=total, completed=start, figures="")
        yield lambda done, figures="": bar.update(identity, completed=done, figures=figures)


@contextmanager
def _lines(task: str, total: int, start: int, seconds: float) -> Iterator[Advance]:
    began = time.monotonic()
    printed = float("-inf")

    def advance(done: int, figures: str = "") -> None:
        nonlocal printed
        now = time.monotonic()
        if now - printed < seconds and done < total:
            return
        printed = now
        left = (now - began) / max(1, done - start) * (total - done)
        print(f"{task} {done}/{total}, {_clock(left)} left{', ' if figures else ''}{figures}", flush=True)

    yield advance


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def track(task: str, items: Iterable[Item], total: int) -> Iterator[Item]:
    """The items, with progress shown as they are taken."""
    with progress(task, total) as advance:
        for done, item in enumerate(items, start=1):
            yield item
            advance(done)
