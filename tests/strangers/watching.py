"""Readings without a monitor."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from vqtool.diagnostics.probes import WatchedCodebook
from vqtool.diagnostics.recording.hooks import watch


def readings_of(
    codebooks: dict[str, WatchedCodebook], within: Callable[[], AbstractContextManager] = nullcontext
) -> tuple[dict[str, list], list]:
    """What is read of the codebooks from now on, by their names; and what takes the instrument away again."""
    readings, handles = {}, []
    for name, codebook in codebooks.items():

        def on_return(call, name=name, codebook=codebook, tap=0):
            with torch.no_grad(), within():
                reading = codebook.read(tap, call)
            if reading is not None and codebook.module.training:
                readings.setdefault(name, []).append(reading)

        for number, tap in enumerate(codebook.taps):
            handles.append(watch(tap, lambda call, number=number, on_return=on_return: on_return(call, tap=number)))
    return readings, handles
