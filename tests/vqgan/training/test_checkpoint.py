import os
from pathlib import Path

import pytest
import torch

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.quantizers import GumbelQuantizer
from vqtool.vqgan.training.checkpoint import load_checkpoint, load_weights, save_checkpoint


def refusal(path):
    with pytest.raises(InputError) as error:
        load_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    return str(error.value)


class Code:
    """Unpickles into a call."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    path = tmp_path / "new" / "last.ckpt"
    state = {"step": 3, "weights": {"w": torch.arange(4.0)}, "names": ["a", "b"], "nothing": None, "share": 0.5}
    save_checkpoint(path, state)
    loaded = load_checkpoint(path)
    assert torch.equal(loaded.pop("weights")["w"], state.pop("weights")["w"])
    assert loaded == state
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_later_checkpoint_takes_the_place_of_an_earlier_one(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path / "last.ckpt", {"step": step})
    assert load_checkpoint(tmp_path / "last.ckpt") == {"step": 2}


def test_a_save_that_fails_half_way_leaves_the_old_checkpoint(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, {"weights": torch.ones(1000), "no data": lambda: None})
    assert load_checkpoint(path) == {"step": 1}
    save_checkpoint(path, {"step": 2})  # what the failure left behind does not stand in the way
    assert load_checkpoint(path) == {"step": 2}


def test_a_missing_checkpoint_is_named(tmp_path):
    assert "no checkpoint" in refusal(tmp_path / "last.ckpt")
    assert "no checkpoint" in refusal(tmp_path)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path):
    torch.save({"weights": Code(tmp_path / "ran")}, tmp_path / "last.ckpt")
    assert "more than tensors and plain values" in refusal(tmp_path / "last.ckpt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04abc", b"\x80\x02", b".", b"}0."])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    assert "damaged" in refusal(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_a_checkpoint_cut_short_is_refused(tmp_path, share):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"weights": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "damaged" in refusal(path)


def test_a_file_of_one_tensor_is_no_checkpoint(tmp_path):
    torch.save(torch.ones(3), tmp_path / "last.ckpt")
    assert "it holds a Tensor" in refusal(tmp_path / "last.ckpt")


# ---- weights into a module

SOURCE = Path("run/last.ckpt")


def test_weights_that_fit_are_loaded():
    module, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    load_weights(module, other.state_dict(), SOURCE)
    assert torch.equal(module.weight, other.weight)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": torch.ones(4, 2)}, r"'weight' is \(4, 2\) there and \(3, 2\) here"),
        ({"bias": None}, "lacks 'bias'"),
        ({"scale": torch.ones(1)}, "has 'scale', which this model lacks"),
        ({"weight": None, "bias": None}, "lacks 'bias'"),
    ],
)
def test_weights_of_another_model_are_refused_with_the_first_that_differs(change, message):
    module = torch.nn.Linear(2, 3)
    before = module.weight.clone()
    weights = {name: value for name, value in {**module.state_dict(), **change}.items() if value is not None}
    with pytest.raises(InputError, match=message) as error:
        load_weights(module, weights, SOURCE)
    assert str(SOURCE) in str(error.value)
    assert torch.equal(module.weight, before)


def model_with_schedules():
    model = torch.nn.ModuleDict({"quantize": GumbelQuantizer(8, 4)})
    model["quantize"].end_step()
    return model


def test_weights_that_lack_the_state_of_a_schedule_are_loaded_and_the_schedule_stays():
    model, other = model_with_schedules(), model_with_schedules()
    weights = {name: value for name, value in other.state_dict().items() if name != "quantize.updates"}
    load_weights(model, weights, SOURCE)
    assert torch.equal(model["quantize"].codebook, other["quantize"].codebook)
    assert model["quantize"].updates == 1


def test_weights_that_have_the_state_of_a_schedule_set_it():
    model, other = model_with_schedules(), model_with_schedules()
    other["quantize"].end_step()
    load_weights(model, other.state_dict(), SOURCE)
    assert model["quantize"].updates == 2


@pytest.mark.parametrize("schedule", [True, False])
@pytest.mark.parametrize("name", ["quantize.proj.weight", "quantize.proj.bias", "quantize.embed.weight"])
def test_a_missing_weight_beside_a_schedule_is_still_refused_by_name(name, schedule):
    model = model_with_schedules()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    gone = {name} if schedule else {name, "quantize.updates"}
    weights = {key: value + 1 for key, value in before.items() if key not in gone}
    with pytest.raises(InputError, match=f"lacks '{name}'") as error:
        load_weights(model, weights, SOURCE)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
