"""What is to be sampled: what files are called after it."""

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
