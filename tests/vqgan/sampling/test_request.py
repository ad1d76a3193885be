"""What is to be sampled: what files are called after it, and what is refused."""

from types import SimpleNamespace

import pytest

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.sampling.request import Request
from vqtool.vqgan.sampling.settings import DrawingSettings


def test_a_file_is_named_after_the_seed_and_all_that_is_not_as_by_default():
    assert Request().told == "seed0"
    assert Request(seed=3, drawing=DrawingSettings(top_k=100)).told == "seed3-top-k-100"
    drawing = DrawingSettings(guidance=2, greedy=True, top_p=0.9, top_k=5, temperature=0.7)
    request = Request(
        drawing=drawing, classes=("cat", "a dog"), size=(48, 64), window=(2, 3), split="test", count=9, separate=True
    )
    assert request.told == (
        "seed0-temperature-0.7-top-k-5-top-p-0.9-greedy-True-guidance-2.0-classes-catxa_dog-size-48x64-window-2x3"
        "-split-test"
    )


@pytest.fixture
def trained():
    """As much of a model of 8 x 8 codes of 2 pixels, without a condition, as a request is checked against."""
    config = SimpleNamespace(
        condition=SimpleNamespace(kind="none", drop=0.0), transformer=SimpleNamespace(order="spiral-in")
    )
    return SimpleNamespace(
        config=config,
        condition=SimpleNamespace(classes=(), length=1),
        frozen=SimpleNamespace(first=SimpleNamespace(factor=2)),
        model=SimpleNamespace(grid=(8, 8), gpt=SimpleNamespace(block_size=65)),
    )


@pytest.mark.parametrize(
    ("asked", "told", "parameters"),
    [
        (Request(classes=("cat",)), "classes: this transformer", ("classes",)),
        (Request(window=(2, 2)), "window is for images larger", ("window", "size")),
        (Request(size=(33, 32)), "size 33x32 is not", ("size",)),
        (Request(size=(64, 64), window=(9, 8)), "window 9x8 is larger", ("window",)),
        (Request(size=(32, 32)), "size 32x32: a sliding window", ("size",)),
        (Request(size=(16, 16), window=(1, 9)), "size 16x16 is smaller than the window", ("size",)),
        (Request(drawing=DrawingSettings(guidance=2)), "guidance 2.0 needs", ("guidance", "condition.drop")),
        (Request("completions", size=(16, 16)), "size is for new images", ("size",)),
    ],
    ids=range(8),
)
def test_what_is_refused_is_told_by_its_parameters(trained, asked, told, parameters):
    with pytest.raises(InputError) as error:
        asked.check(trained)
    line = str(error.value)
    assert line.startswith(told)
    assert "--" not in line
    assert error.value.parameters == parameters
    assert all(name in line for name in parameters)
