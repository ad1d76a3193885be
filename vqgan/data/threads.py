import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 16


def in_threads(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map(function, items)` by threads, in order, running only a little ahead of whoever takes the results.

    For functions that release the interpreter's lock, as reading, hashing, decoding and resizing do. Items travel in
    small chunks, because a hand-over between threads costs as much as decoding a very small image.
    """
    workers = min(16, os.cpu_count() or 1)
    items = iter(items)
    ahead = deque()
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(items, _CHUNK)):
            ahead.append(pool.submit(_each, function, chunk))
            if len(ahead) > 2 * workers:
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def _each(function: Callable[[Item], Result], chunk: list[Item]) -> list[Result]:
    return [function(item) for item in chunk]
