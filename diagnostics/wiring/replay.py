"""The calls of a quantizer made again, in training and in evaluation mode, on the same latents."""

import inspect
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..probes import CodebookReading, Reader, WatchedCodebook, find_codebooks
from ..probes.base import Tap
from ..probes.round_trip import is_index, leaves
from .evidence import Entry, Forward, Seen
from .places import path_of
from .subject import Subject, seed_all
from .watching import CallReader, Repeatable, forward_of, repeat, watched

#: Functions of quantizers that take indices and give codes.
ENTRIES = (
    *("lookup", "get_codebook_entry", "get_codes_from_indices", "get_output_from_indices", "indices_to_codes"),
    *("embed_code", "decode_code", "dequantize", "decode", "from_indices", "indices_to_latents", "get_codebook_feat"),
)


class Bench:
    """One quantizer on copies of a model that has taken its steps.

    Args:
        after: The model after the trial.
        name: Name of the codebook.
        call: The call to make again; its module is one of ``after``.
        read: Readers, by path.
    """

    def __init__(self, after: Subject, name: str, call: Repeatable, read: Mapping[str, Reader] | None):
        self._after, self._name, self._call, self._read = after, name, call, read
        self._path = path_of(after.model, call.tap.module)

    def set_up(self) -> tuple[Subject, WatchedCodebook, Repeatable]:
        """A fresh copy, its codebook, and the call on it."""
        copy = self._after.copy()
        codebook = find_codebooks(copy.model, self._read)[self._name]
        module = copy.model.get_submodule(self._path)
        return copy, codebook, self._call._replace(tap=Tap(module, self._call.tap.method))

    def training(self, seed: int) -> Forward:
        """A call in training mode, the random numbers begun at ``seed``."""
        return self._made(*self.set_up(), seed)

    def evaluation(self) -> tuple[Forward, list[Entry]]:
        """A call in evaluation mode, and what the functions that take indices make of its indices."""
        copy, codebook, call = self.set_up()
        copy.model.eval()
        outputs: list[Any] = []
        forward = self._made(copy, codebook, call, 0, outputs)
        return forward, list(_entries(self._path, codebook.module, call, outputs[0], forward))

    def _made(
        self, copy: Subject, codebook: WatchedCodebook, call: Repeatable, seed: int, outputs: list[Any] | None = None
    ) -> Forward:
        readings: list[CodebookReading] = []
        reader = CallReader(codebook, readings.append)
        modes = [part.training for part in call.tap.module.modules()]
        with watched(reader):
            call.tap.module.eval()
            repeat(call)  # only after a call is it known which codes the table gives
            for part, mode in zip(call.tap.module.modules(), modes, strict=True):
                part.training = mode
            readings.clear()
            before = _codes(codebook)
            seed_all(seed)
            output = repeat(call)
        if outputs is not None:
            outputs.append(output)
        if reader.refused or not readings:
            raise InputError(reader.refused or "the call gave no reading when it was made again")
        return forward_of(0, readings[0], before, _codes(codebook))


def _codes(codebook: WatchedCodebook) -> Tensor | None:
    codes = codebook.codes()
    return None if codes is None else codes.clone()


def replay(seen: Seen, bench: Bench) -> None:
    """Fill in what calls made again show of a codebook."""
    seen.evaluation, seen.entries = bench.evaluation()
    seen.training = [bench.training(seed) for seed in (1, 2)]


@torch.no_grad()
def _entries(path: str, module: nn.Module, call: Repeatable, output: Any, made: Forward) -> Iterator[Entry]:
    """What each function of the quantizer that takes indices gives, compared with what its call handed on."""
    found = [leaf for _, leaf in leaves(output)]
    numbers = [leaf for leaf in found if is_index(leaf) and leaf.numel() >= len(made.indices)]
    first = call.args[0] if call.args else next(iter(call.kwargs.values()), None)
    maps = [leaf for leaf in found if leaf.is_floating_point() and leaf.ndim > 1]
    if isinstance(first, Tensor):
        maps = [leaf for leaf in maps if leaf.shape == first.shape] or maps
    if not numbers or not maps or bool((numbers[0] < 0).any()):
        return
    for name in ENTRIES:
        method = getattr(type(module), name, None)
        if callable(method) and name != call.tap.method:
            yield _entry(".".join(part for part in (path, name) if part), getattr(module, name), numbers[0], maps[0])


def _entry(told: str, method: Any, indices: Tensor, handed_on: Tensor) -> Entry:
    given = _given(method, indices, handed_on)
    if given is None:
        return Entry(told, None, why="it takes or gives something else than indices and vectors")
    difference = min(
        (float((layout - handed_on).abs().max()) for layout in _layouts(given, handed_on)), default=float("nan")
    )
    if difference != difference:
        return Entry(told, None, why=f"it gave {tuple(given.shape)} for {tuple(handed_on.shape)}")
    return Entry(told, difference, float(handed_on.abs().max()))


def _given(method: Any, indices: Tensor, handed_on: Tensor) -> Tensor | None:
    """What the method makes of the indices: as they are, flat, or by sample; or with the shape of a map beside them."""
    several = len([p for p in inspect.signature(method).parameters.values() if p.default is p.empty]) > 1
    shape = (handed_on.shape[0], *handed_on.shape[2:], handed_on.shape[1])
    laid_out = [indices, indices.flatten()]
    if indices.numel() % len(handed_on) == 0:
        laid_out.append(indices.reshape(len(handed_on), -1))
    for args in ((each, shape) if several else (each,) for each in laid_out):
        try:
            given = method(*args)
        except Exception:
            continue
        found = [leaf for _, leaf in leaves(given) if leaf.is_floating_point() and leaf.numel() == handed_on.numel()]
        if found:
            return found[0]
    return None


def _layouts(given: Tensor, handed_on: Tensor) -> Iterator[Tensor]:
    """``given`` in every order of its axes that has the shape of ``handed_on``, and with its tokens in a row."""
    for order in itertools.permutations(range(given.ndim)):
        permuted = given.permute(order)
        if permuted.shape == handed_on.shape:
            yield permuted
    for axis in range(1, handed_on.ndim):
        moved = handed_on.movedim(axis, -1)
        if given.shape[-1] == moved.shape[-1]:
            yield given.reshape(moved.shape).movedim(-1, axis)
