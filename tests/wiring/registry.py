"""Faults of wiring that real projects had, rebuilt as tiny training set-ups, and the same set-ups without them."""

from collections.abc import Callable

import strangers  # noqa: F401

from wiring.base import Bug, SetUp
from wiring.entries import ENTRY_BUGS, ENTRY_CLEAN
from wiring.libraries import LIBRARY_BUGS, LIBRARY_CLEAN
from wiring.models import MODEL_BUGS, MODEL_CLEAN
from wiring.moving import MOVING_BUGS, MOVING_CLEAN
from wiring.regularized import REGULARIZED_BUGS, REGULARIZED_CLEAN
from wiring.residual import RESIDUAL_BUGS, RESIDUAL_CLEAN
from wiring.tables import TABLE_BUGS, TABLE_CLEAN
from wiring.training import TRAINING_BUGS, TRAINING_CLEAN

#: Every fault that one process shows, by name.
BUGS: dict[str, Bug] = {
    **TABLE_BUGS,
    **MODEL_BUGS,
    **MOVING_BUGS,
    **RESIDUAL_BUGS,
    **ENTRY_BUGS,
    **REGULARIZED_BUGS,
    **TRAINING_BUGS,
    **LIBRARY_BUGS,
}
#: Set-ups in which nothing is to be found.
CLEAN: dict[str, Callable[[], SetUp]] = {
    **TABLE_CLEAN,
    **MODEL_CLEAN,
    **MOVING_CLEAN,
    **RESIDUAL_CLEAN,
    **ENTRY_CLEAN,
    **REGULARIZED_CLEAN,
    **TRAINING_CLEAN,
    **LIBRARY_CLEAN,
}

__all__ = ["BUGS", "CLEAN", "Bug", "SetUp"]
