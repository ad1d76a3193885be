"""The comparison behind every claim of "bit for bit" can fail: each of these single mistakes is seen."""

import json
import math

import pandas as pd
import pytest
import torch
from runs import assert_same_run, same

from vqtool.diagnostics import RunDirectory


def a_state():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).double()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(4, 3, dtype=torch.float64)).sum().backward()
    optimizer.step()
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": [{"cpu": generator.get_state()}],
        "drift": torch.tensor([math.nan, 1.0, 0.0]),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "best": 0.1,
        "step": 3,
    }
    return state


def ulp(tensor):
    with torch.no_grad():
        tensor.view(-1)[0] = torch.nextafter(tensor.view(-1)[0], tensor.new_tensor(math.inf))


MISTAKES = {
    "a weight by one ulp": lambda state: ulp(state["model"]["0.weight"]),
    "a moment by one ulp": lambda state: ulp(state["optimizer"]["state"][0]["exp_avg"]),
    "the step count of a parameter": lambda state: state["optimizer"]["state"][1]["step"].add_(1),
    "one byte of the random numbers": lambda state: state["random"][0]["cpu"][7].add_(1),
    "a counter": lambda state: state["model"]["1.num_batches_tracked"].add_(1),
    "a number in the place of NaN": lambda state: state["drift"][0].fill_(0),
    "NaN in the place of a number": lambda state: state["drift"][1].fill_(math.nan),
    "the sign of zero": lambda state: state["drift"][2].fill_(-0.0),
    "a half by one ulp": lambda state: ulp(state["half"]),
    "a dtype": lambda state: state.update(half=state["half"].float()),
    "a shape": lambda state: state.update(half=state["half"][None]),
    "a float by one ulp": lambda state: state.update(best=math.nextafter(0.1, 1)),
    "a learning rate": lambda state: state["optimizer"]["param_groups"][0].update(lr=2e-3),
    "a whole number for a float": lambda state: state.update(step=3.0),
    "a missing key": lambda state: state.pop("step"),
    "one more key": lambda state: state.update(more=1),
    "a list that ends early": lambda state: state["random"].pop(),
}


def test_equal_states_are_the_same_with_nan_where_there_is_nan():
    same(a_state(), a_state())


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_mistake_in_a_state_is_seen(mistake):
    wrong = a_state()
    MISTAKES[mistake](wrong)
    with pytest.raises(AssertionError):
        same(a_state(), wrong)


def a_run(path, *, hits=4, distortion=0.5, loss=0.25, psnr=20.0, weight=1.0):
    run = RunDirectory(path)
    run.checkpoints.mkdir(parents=True)
    (run.trace / "q").mkdir(parents=True)
    torch.save({"model": torch.tensor([weight]), "seconds": 1.0}, run.last_checkpoint)
    pd.DataFrame({"hits": [hits], "distortion": [distortion]}).to_parquet(run.trace / "q" / "part-1.parquet")
    run.metrics.write_text(json.dumps({"step": 1, "loss": loss, "speed/images_per_second": 3}) + "\n")
    run.write_json(run.evaluation("test"), {"psnr": psnr})
    return run


@pytest.mark.parametrize(
    "mistake",
    [
        {"hits": 5},
        {"distortion": 0.5 + 1e-12},
        {"loss": 0.25 + 1e-16 * 4},
        {"psnr": 20.000000000000004},
        {"weight": 1.0000001},
    ],
    ids=str,
)
def test_one_mistake_in_what_a_run_left_is_seen(tmp_path, mistake):
    a, b, c = a_run(tmp_path / "a"), a_run(tmp_path / "b"), a_run(tmp_path / "c", **mistake)
    assert_same_run(a, b)
    with pytest.raises(AssertionError):
        assert_same_run(a, c)


def test_runs_that_left_nothing_are_not_called_the_same(tmp_path):
    for name in "ab":
        a_run(tmp_path / name).evaluation("test").unlink()
    with pytest.raises(AssertionError):
        assert_same_run(RunDirectory(tmp_path / "a"), RunDirectory(tmp_path / "b"))
