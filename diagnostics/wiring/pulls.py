"""What the losses ask of a quantizer's output, once nothing comes from a decoder."""

from contextlib import ExitStack

from torch import Tensor

from ..probes import CodebookReading, WatchedCodebook
from .subject import Subject, seed_all
from .watching import CallReader, watched


def output_pulls(silent: Subject, codebooks: dict[str, WatchedCodebook]) -> dict[str, tuple[float, float]]:
    """For each codebook the weight w of w mean |output - sg[z]|^2 that the gradient at its output is, and the R2.

    Args:
        silent: A copy whose decoder hands on no gradient.
        codebooks: Its codebooks; those without a gradient at their output are left out.
    """
    first: dict[str, CodebookReading] = {}
    gradients: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name, codebook in codebooks.items():

            def take(reading: CodebookReading, name: str = name) -> None:
                if name not in first and reading.leaving is not None and reading.leaving.tensor.requires_grad:
                    first[name] = reading
                    reading.leaving.tensor.register_hook(lambda g: _add(gradients, name, g))

            stack.enter_context(watched(CallReader(codebook, take)))
        seed_all(0)
        silent.backward(silent.value())
    return {name: _fit(first[name], gradient) for name, gradient in gradients.items()}


def _add(gradients: dict[str, Tensor], name: str, gradient: Tensor | None) -> None:
    if gradient is not None:
        gradients[name] = gradient if name not in gradients else gradients[name] + gradient


def _fit(reading: CodebookReading, gradient: Tensor) -> tuple[float, float]:
    """Weight and R2 of the gradient regressed on q - z, through the origin; zero where there is no gradient."""
    assert reading.leaving is not None
    g = reading.kept(reading.leaving.tokens(gradient.detach())).double()
    away = reading.kept(reading.codes - reading.latents).double()
    gg, aa, ga = (float((a * b).sum()) for a, b in ((g, g), (away, away), (g, away)))
    if gg == 0 or aa == 0:
        return 0.0, 0.0
    return ga / aa * float(reading.counted.sum()) * away.shape[1] / 2, ga * ga / (gg * aa)
