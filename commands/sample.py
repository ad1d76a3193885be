"""``vqtool sample``."""

from pathlib import Path
from typing import Annotated

import typer

from .options import check_names


def sample(
    run: Annotated[Path, typer.Argument(help="Run folder of a transformer.")],
    what: Annotated[str, typer.Option(help="samples, or completions of images of a split.")] = "samples",
    count: Annotated[int | None, typer.Option(min=1, help="How many.  [default: what fills a panel]")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images at once.")] = 25,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and batch give the same images.")] = 0,
    temperature: Annotated[float, typer.Option(help="Divides the logits.")] = 1.0,
    top_k: Annotated[int | None, typer.Option(help="Only the k likeliest codes.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Only the nucleus: the likeliest codes that reach p.")] = None,
    greedy: Annotated[bool, typer.Option("--greedy", help="Always the likeliest code.")] = False,
    guidance: Annotated[float, typer.Option(help="Scale of classifier-free guidance; 1: none.")] = 1.0,
    classes: Annotated[
        str | None, typer.Option(metavar="CLASS,CLASS,...", help="Names or numbers.  [default: all]")
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Pixels of larger images, drawn through a sliding window.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(metavar="HxW", help="Its size in codes.  [default: the training grid]")
    ] = None,
    split: Annotated[str, typer.Option(help="Where originals and spatial conditions come from.")] = "validation",
    separate: Annotated[bool, typer.Option("--separate", help="Each image as a file of its own, too.")] = False,
    checkpoint: Annotated[str, typer.Option(help="last or best.")] = "last",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder.  [default: RUN/samples]")] = None,
) -> None:
    """Sample images from a transformer.

    Example: vqtool sample runs/mine --classes cat,dog --guidance 2 --top-k 100
    """
    from ..diagnostics.errors import unknown
    from ..diagnostics.run import RunDirectory
    from ..vqgan.sampling.request import KINDS, Request
    from ..vqgan.sampling.sample import write_samples
    from ..vqgan.sampling.settings import DrawingSettings
    from ..vqgan.training.devices import available_device
    from ..vqgan.transformer.trained import Trained

    check_names(device, checkpoint)
    if what not in KINDS:
        raise unknown("kind of sample", what, KINDS)
    request = Request(
        what=what,
        count=count,
        batch=batch,
        seed=seed,
        drawing=DrawingSettings.of(temperature=temperature, top_k=top_k, top_p=top_p, greedy=greedy, guidance=guidance),
        classes=tuple(name.strip() for name in classes.split(",")) if classes else (),
        size=_two_numbers("--size", size),
        window=_two_numbers("--window", window),
        split=split,
        separate=separate,
    )
    trained = Trained.load(RunDirectory(run), checkpoint, available_device(device))
    for path in write_samples(trained, request, out or run / "samples"):
        typer.echo(f"images: {path}")


def _two_numbers(option: str, text: str | None) -> tuple[int, int] | None:
    """``64x96`` -> (64, 96)."""
    from ..diagnostics.errors import InputError

    if text is None:
        return None
    numbers = text.lower().split("x")
    if len(numbers) != 2 or not all(number.isdecimal() and int(number) for number in numbers):
        raise InputError(f"{option} {text!r} should be height and width, as in {option} 64x96")
    return int(numbers[0]), int(numbers[1])
