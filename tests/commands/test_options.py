"""What the commands make of what the library tells."""

import pickle

import pytest

from vqtool.commands.options import in_options
from vqtool.diagnostics.errors import InputError


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("size 3x3 is of no size", "size"), "--size 3x3 is of no size"),
        (InputError("window: give size, too", "window", "size"), "--window: give --size, too"),
        (InputError("top_k 0 leaves nothing", "top_k"), "--top-k 0 leaves nothing"),
        (InputError("try condition.drop=0.1", "condition.drop"), "try --set condition.drop=0.1"),
        (InputError("resized to the size of it"), "resized to the size of it"),
        (InputError("resized: what size?", "size"), "resized: what --size?"),
    ],
    ids=str,
)
def test_parameters_and_settings_of_an_error_are_told_as_options(error, line):
    assert in_options(error) == line


def test_an_error_keeps_its_parameters_on_its_way_from_another_process():
    error = pickle.loads(pickle.dumps(InputError("size 3x3", "size")))
    assert (str(error), error.parameters) == ("size 3x3", ("size",))
