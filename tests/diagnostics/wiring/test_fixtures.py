"""The set-ups that the lint is tried on have the faults that they are said to have, without asking the lint."""

import pytest
import torch
import torch.multiprocessing
from wiring import BUGS, CLEAN
from wiring.replicas import RANKS, REPLICA_BUGS, REPLICA_CLEAN, ask
from wiring.symptoms import step

from vqtool.diagnostics import find_codebooks


@pytest.mark.parametrize("name", BUGS)
def test_a_fault_is_there(name):
    bug = BUGS[name]
    assert bug.symptom(bug.make())


@pytest.mark.parametrize("name", BUGS)
def test_its_clean_twin_does_not_have_it(name):
    bug = BUGS[name]
    assert not bug.symptom(CLEAN[bug.twin]())


@pytest.mark.parametrize("name", [*BUGS, *CLEAN])
def test_a_set_up_trains_and_is_the_same_each_time(name):
    make = BUGS[name].make if name in BUGS else CLEAN[name]
    losses = []
    for _ in range(2):
        setup = make()
        torch.manual_seed(0)
        for _ in range(2):
            setup = step(setup)
        losses.append(setup.loss(setup.model, setup.batch).detach())
    assert losses[0].isfinite()
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", BUGS)
def test_what_a_finding_has_to_name_is_in_the_model(name):
    bug = BUGS[name]
    value = bug.make().model
    for part in bug.attribute.split("."):
        assert hasattr(value, part)
        value = getattr(value, part)


@pytest.mark.parametrize("name", [*BUGS, *CLEAN])
def test_its_quantizers_are_recognised(name):
    make = BUGS[name].make if name in BUGS else CLEAN[name]
    assert find_codebooks(make().model)


@pytest.mark.parametrize("name", [name for name in CLEAN if name not in ("lucidrains FSQ", "lucidrains LFQ")])
def test_clean_codes_learn(name):
    setup = CLEAN[name]()
    after = setup
    for _ in range(3):
        after = step(after)
    before, now = (find_codebooks(each.model) for each in (setup, after))
    assert all(not torch.equal(before[name].codes(), now[name].codes()) for name in before)


@pytest.mark.slow
def test_ranks_part_where_they_are_said_to(tmp_path):
    torch.multiprocessing.spawn(ask, args=(tmp_path,), nprocs=RANKS)
    for rank in range(RANKS):
        bugs, clean = torch.load(tmp_path / f"rank{rank}.pt")
        assert bugs == dict.fromkeys(REPLICA_BUGS, True)
        assert clean == dict.fromkeys(REPLICA_CLEAN, False)
