import numpy as np
import pytest
import torch

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.data import Batches, DecodeReport, Images


def numbered(count: int, side: int = 6, image_size: int = 4) -> Images:
    """Images of noise whose label is their number, with room to crop."""
    pixels = np.random.default_rng(0).integers(0, 256, count * 3 * side * side, dtype=np.uint8)
    table = [(i * 3 * side * side, side, side, 0, 0, i) for i in range(count)]
    return Images(pixels, np.array(table, np.int64), image_size, (), [], DecodeReport(count, 1.0, False))


def labels(batches: Batches, steps: range) -> list[int]:
    return torch.cat([batches(step)[1] for step in steps]).tolist()


@pytest.mark.parametrize(("world_size", "accumulate"), [(2, 2), (4, 1), (1, 3), (3, 4)])
def test_ranks_and_micro_steps_together_see_the_batch_of_one_process(world_size, accumulate):
    images = numbered(50)
    whole = Batches(images, 24, seed=7)
    parts = [Batches(images, 24, 7, world_size, rank, accumulate) for rank in range(world_size)]
    for step in range(5):
        expected_images, expected_labels = whole(step)
        seen = [part(step, micro) for part in parts for micro in range(accumulate)]
        assert torch.equal(torch.cat([batch[0] for batch in seen]), expected_images)
        assert torch.equal(torch.cat([batch[1] for batch in seen]), expected_labels)


def test_every_epoch_is_a_permutation_of_its_own():
    batches = Batches(numbered(20), 8, seed=1)
    assert batches.steps_per_epoch == 2.5
    seen = labels(batches, range(5))
    assert sorted(seen[:20]) == sorted(seen[20:]) == list(range(20))
    assert seen[:20] != seen[20:]


def test_a_data_set_smaller_than_a_batch_wraps_into_the_next_epochs():
    batches = Batches(numbered(3), 8, seed=2)
    seen = labels(batches, range(3))
    assert all(sorted(seen[i : i + 3]) == [0, 1, 2] for i in range(0, 24, 3))
    assert batches.steps_per_epoch == 3 / 8


def test_a_step_does_not_depend_on_the_steps_before_it():
    images = numbered(20)
    running = Batches(images, 8, seed=3)
    for step in range(9):
        last = running(step)
    fresh = Batches(images, 8, seed=3)(8)
    assert torch.equal(last[0], fresh[0])
    assert torch.equal(last[1], fresh[1])


def test_seeds_decide_about_order_and_crops():
    images = numbered(200)
    one, other = Batches(images, 100, seed=0)(0), Batches(images, 100, seed=1)(0)
    assert one[1].tolist() != other[1].tolist()
    single = numbered(1)
    assert not torch.equal(Batches(single, 8, seed=0)(0)[0], Batches(single, 8, seed=1)(0)[0])


def test_an_image_is_cropped_differently_at_every_step():
    batches = Batches(numbered(1), 1, seed=0)
    assert len({batches(step)[0].numpy().tobytes() for step in range(40)}) > 10  # of 3 x 3 places x 2 directions


def test_without_flip_no_image_is_mirrored():
    images = numbered(1, side=4)
    upright = images.batch([0])[0][0]
    crops = Batches(images, 32, seed=0, flip=False)(0)[0]
    assert all(torch.equal(crop, upright) for crop in crops)
    flipped = [not torch.equal(crop, upright) for crop in Batches(images, 32, seed=0)(0)[0]]
    assert 4 < sum(flipped) < 28


def test_flips_do_not_change_which_crops_are_taken():
    images = numbered(10)
    plain, flipped = Batches(images, 10, seed=0, flip=False)(0)[0], Batches(images, 10, seed=0)(0)[0]
    assert all(
        torch.equal(one, other) or torch.equal(one.flip(-1), other) for one, other in zip(plain, flipped, strict=True)
    )


@pytest.mark.parametrize(("batch_size", "nearest"), [(10, "8"), (0, "4"), (3, "4")])
def test_a_batch_that_cannot_be_divided_is_refused_with_the_nearest_that_can(batch_size, nearest):
    with pytest.raises(
        InputError, match=f"batch size {batch_size} .*2 rank.*2 micro.*nearest size that can is {nearest}$"
    ):
        Batches(numbered(5), batch_size, 0, world_size=2, accumulate=2)


def test_a_negative_seed_is_refused():
    with pytest.raises(InputError, match="seed -1"):
        Batches(numbered(5), 1, -1)


def test_a_micro_step_beyond_the_last_is_an_error():
    with pytest.raises(IndexError):
        Batches(numbered(5), 4, 0, accumulate=2)(0, micro=2)
