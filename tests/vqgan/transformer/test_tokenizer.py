"""A frozen first stage gives codes, takes them back, and is never changed by either."""

import copy
import re
import shutil

import pytest
import torch
import yaml

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.autoencoder.model import build_model
from vqtool.vqgan.data import normalize
from vqtool.vqgan.data.views import label_colours
from vqtool.vqgan.quantizers import QUANTIZERS
from vqtool.vqgan.training.checkpoint import load_checkpoint
from vqtool.vqgan.transformer.tokenizer import Tokenizer


@pytest.fixture
def crops(splits):
    """(8, 3, 16, 16) bytes."""
    return splits["test"].batch(range(8))[0]


@pytest.fixture
def untrained(tiny, tmp_path):
    """A function from settings to a tokenizer of random weights whose codes differ from place to place."""

    def make(**branches):
        config = tiny(**branches)
        model = build_model(config)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
            model.quantize.overwrite(torch.arange(16), torch.randn(16, 8, generator=generator) / 2)
        return Tokenizer(config, model.state_dict(), tmp_path)

    return make


def refusal(path):
    """The one line that a folder is refused with."""
    with pytest.raises(InputError) as error:
        Tokenizer.of_run(path)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- from the folder of a run


def test_the_last_checkpoint_of_a_finished_run_is_what_encodes(first_stage, tiny, crops):
    tokenizer = Tokenizer.of_run(first_stage)
    model = build_model(tokenizer.config).eval()
    model.load_state_dict(load_checkpoint(first_stage / "checkpoints" / "last.ckpt")["learner"]["model"])
    codes = tokenizer.encode(crops)
    assert torch.equal(codes, model.encode(normalize(crops)).indices)
    assert codes.dtype == torch.int64
    assert codes.shape == (8, 4, 4)
    assert codes.unique().numel() > 4
    assert (tokenizer.codebook_size, tokenizer.factor, tokenizer.device.type) == (16, 4, "cpu")


def test_a_missing_run_is_refused(tmp_path):
    path = tmp_path / "nothing"
    assert refusal(path) == f"{path} is not a run: it has no config.yaml"


def test_an_unfinished_run_is_refused(first_stage, tmp_path):
    path = shutil.copytree(first_stage, tmp_path / "run")
    Tokenizer.of_run(path)
    (path / "DONE").unlink()
    assert refusal(path).startswith(f"first stage {path} is not finished: ")


def test_a_run_of_the_second_stage_is_refused(second_stage, tmp_path):
    (tmp_path / "config.yaml").write_text(second_stage().to_yaml())
    (tmp_path / "DONE").write_text("{}")
    assert refusal(tmp_path) == f"first stage {tmp_path} is a run of the stage 'transformer': give one of vqgan"


def test_a_finished_run_without_its_checkpoint_is_refused(first_stage, tmp_path):
    path = shutil.copytree(first_stage, tmp_path / "run")
    (path / "checkpoints" / "last.ckpt").unlink()
    assert refusal(path).startswith(f"no checkpoint {path / 'checkpoints' / 'last.ckpt'}")


def test_a_checkpoint_of_another_model_is_refused(first_stage, tmp_path):
    path = shutil.copytree(first_stage, tmp_path / "run")
    tree = yaml.safe_load((path / "config.yaml").read_text())
    tree["quantizer"]["codebook_size"] = 32
    (path / "config.yaml").write_text(yaml.safe_dump(tree))
    assert re.search(
        r"last\.ckpt is of another shape: 'quantize\S+' is \(16, 8\) there and \(32, 8\) here$", refusal(path)
    )


def test_an_older_run_whose_settings_name_no_stage_is_a_first_stage(first_stage, tokenizer, tmp_path):
    path = shutil.copytree(first_stage, tmp_path / "run")
    tree = yaml.safe_load((path / "config.yaml").read_text())
    del tree["stage"]
    (path / "config.yaml").write_text(yaml.safe_dump(tree))
    assert Tokenizer.of_run(path).fingerprint == tokenizer.fingerprint


# ---- as one file


def test_a_saved_tokenizer_gives_the_same_codes_and_fingerprint(tokenizer, crops, tmp_path):
    tokenizer.save(tmp_path / "first.ckpt")
    loaded = Tokenizer.load(tmp_path / "first.ckpt")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.config == tokenizer.config
    assert torch.equal(loaded.encode(crops), tokenizer.encode(crops))
    assert torch.equal(loaded.decode(loaded.encode(crops)), tokenizer.decode(tokenizer.encode(crops)))


def test_settings_of_the_training_are_no_part_of_the_fingerprint(tokenizer, tmp_path):
    weights = tokenizer.model.state_dict()
    train = tokenizer.config.train.model_copy(update={"steps": 99})
    data = tokenizer.config.data.model_copy(update={"spec": "photos"})
    elsewhere = tokenizer.config.model_copy(update={"train": train, "data": data})
    assert Tokenizer(elsewhere, weights, tmp_path).fingerprint == tokenizer.fingerprint


def test_the_smallest_change_of_any_tensor_is_another_fingerprint(untrained, tmp_path):
    tokenizer = untrained(quantizer={"spec": "ema"})
    found = {tokenizer.fingerprint}
    state = tokenizer.model.state_dict()
    for name, tensor in state.items():
        changed = {**state, name: tensor.clone()}
        flat = changed[name].view(-1)
        flat[-1] = torch.nextafter(flat[-1], flat[-1] + 1) if flat.is_floating_point() else flat[-1] + 1
        found.add(Tokenizer(tokenizer.config, changed, tmp_path).fingerprint)
    assert len(found) == 1 + len(state)


def test_another_view_of_the_same_weights_is_another_fingerprint(tiny, tmp_path):
    configs = [tiny(data={"view": view}) for view in ("image", "edges", "lowres:4", "lowres:8")]
    weights = build_model(configs[0]).state_dict()
    assert len({Tokenizer(config, weights, tmp_path).fingerprint for config in configs}) == 4


# ---- codes


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_are_those_of_the_model_in_evaluation_mode(untrained, crops, name):
    tokenizer = untrained(quantizer={"spec": name})
    torch.manual_seed(0)
    codes = tokenizer.encode(crops)
    twin = copy.deepcopy(tokenizer.model).eval()
    assert torch.equal(codes, twin.encode(normalize(crops)).indices)
    assert codes.unique().numel() > 2
    torch.manual_seed(1)
    assert torch.equal(tokenizer.encode(crops), codes)
    if name == "gumbel":  # what it would be with the noise of the training
        assert not torch.equal(twin.train().encode(normalize(crops)).indices, codes)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_come_back_as_the_reconstruction(untrained, crops, name):
    tokenizer = untrained(quantizer={"spec": name})
    images = tokenizer.decode(tokenizer.encode(crops))
    with torch.no_grad():
        reconstructions, _ = tokenizer.model(normalize(crops))
    torch.testing.assert_close(images, reconstructions.clamp(-1, 1), rtol=0, atol=1e-4)  # straight-through rounds
    assert images.shape == (8, 3, 16, 16)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_nothing_in_it_changes_while_something_else_is_trained(untrained, crops, name):
    tokenizer = untrained(quantizer={"spec": name})
    before = copy.deepcopy(tokenizer.model.state_dict())

    class Learner(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.head = tokenizer, torch.nn.Linear(16, 1)

    learner = Learner().train()
    optimizer = torch.optim.SGD(learner.parameters(), lr=1.0)
    for _ in range(2):
        codes = tokenizer.encode(crops)
        images = tokenizer.decode(codes)
        learner.head(images.mean((1, 2)) + codes.sum((1, 2))[:, None]).sum().backward()
        optimizer.step()
    assert not codes.requires_grad
    assert not images.requires_grad
    assert not any(parameter.requires_grad for parameter in tokenizer.model.parameters())
    assert not any(module.training for module in tokenizer.model.modules())
    after = tokenizer.model.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


@pytest.mark.parametrize("name", QUANTIZERS)
def test_codes_are_the_same_under_autocast(untrained, crops, name):
    tokenizer = untrained(quantizer={"spec": name})
    codes = tokenizer.encode(crops)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer.encode(crops), codes)


def test_a_tokenizer_of_a_condition_looks_at_it(untrained, crops):
    tokenizer = untrained(data={"view": "lowres:4"})
    means = torch.nn.functional.avg_pool2d(normalize(crops), 4)
    blocks = means.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.equal(tokenizer.encode(crops), tokenizer.model.encode(blocks).indices)
    torch.testing.assert_close(tokenizer.picture(crops), blocks)


def test_the_codes_of_a_segmentation_become_colours_of_labels(untrained):
    tokenizer = untrained(data={"view": "segmentation:3"})
    labels = torch.randint(3, (2, 1, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    colours = torch.from_numpy(label_colours()[:3]) / 127.5 - 1
    codes = tokenizer.encode(labels)
    for picture in (tokenizer.picture(labels), tokenizer.decode(codes)):
        pixels = picture.permute(0, 2, 3, 1).reshape(-1, 3)
        assert (pixels[:, None] == colours).all(-1).any(-1).all()
    assert torch.equal(tokenizer.picture(labels), colours[labels[:, 0].long()].permute(0, 3, 1, 2))
