"""The settings of a second stage: what they take from the first, and what they refuse."""

import re
import shutil

import pytest
import yaml

from vqtool.diagnostics import RunDirectory
from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.run import flatten, load_config
from vqtool.vqgan.config.layers import keys
from vqtool.vqgan.transformer.gpt import SIZES
from vqtool.vqgan.transformer.orders import ORDERS
from vqtool.vqgan.transformer.settings import SamplingSettings, TransformerConfig, build_transformer_config
from vqtool.vqgan.transformer.trained import Frozen, second_stage_config


def refusal(tree):
    """The one line that a tree of settings is refused with."""
    with pytest.raises(InputError) as error:
        build_transformer_config(tree)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture
def refused(first_stage):
    """A function from settings over the first stage to the line that they are refused with."""
    return lambda **branches: refusal({"first_stage": str(first_stage), **branches})


# ---- from the first stage


def test_data_and_codebook_size_are_those_of_the_first_stage(first_stage, tokenizer):
    config = build_transformer_config({"first_stage": str(first_stage)})
    assert config.stage == "transformer"
    assert config.first_stage == first_stage
    assert config.data == tokenizer.config.data
    assert config.codebook_size == 16


def test_what_is_said_here_comes_first(first_stage, tokenizer):
    tree = {"first_stage": str(first_stage), "data": {"spec": "photos"}, "codebook_size": 32}
    config = build_transformer_config(tree)
    assert (config.data.spec, config.codebook_size) == ("photos", 32)
    assert config.data.image_size == tokenizer.config.data.image_size


def test_the_settings_of_the_first_training_are_not_taken_over(first_stage, tokenizer):
    config = build_transformer_config({"first_stage": str(first_stage)})
    assert tokenizer.config.train.steps == 2
    assert config.train == TransformerConfig.model_fields["train"].default


def test_a_second_stage_stands_on_a_first_one():
    message = "a transformer needs a finished first stage: name its run with first_stage"
    assert refusal({}) == refusal({"first_stage": None}) == message


def test_a_folder_that_is_no_run_is_told(tmp_path):
    assert refusal({"first_stage": str(tmp_path)}) == f"{tmp_path} is not a run: it has no config.yaml"


def test_a_second_stage_is_no_first_one(second_stage, tmp_path):
    (tmp_path / "config.yaml").write_text(second_stage().to_yaml())
    message = f"first stage {tmp_path} is a run of the stage 'transformer': give one of vqgan"
    assert refusal({"first_stage": str(tmp_path)}) == message


def test_a_number_is_the_name_of_a_folder_like_any_other():
    assert refusal({"first_stage": 3}) == "3 is not a run: it has no config.yaml"


def test_a_config_comes_back_from_its_yaml_without_its_first_stage(second_stage, first_stage, tmp_path):
    run = shutil.copytree(first_stage, tmp_path / "first")
    told = {"condition": {"kind": "class", "drop": 0.1}, "sampling": {"guidance": 2.0, "top_k": 4}}
    config = second_stage(first_stage=str(run), **told)
    shutil.rmtree(run)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert second_stage_config(RunDirectory(tmp_path)) == config
    assert sorted(flatten(yaml.safe_load(config.to_yaml()))) == sorted(keys(TransformerConfig))


def test_a_run_is_read_whatever_its_first_stage_has_become(second_stage, first_stage, tmp_path):
    run = shutil.copytree(first_stage, tmp_path / "first")
    config = second_stage(first_stage=str(run))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    for content in (config.to_yaml(), "no: such key", "{"):
        (run / "config.yaml").write_text(content)
        assert second_stage_config(RunDirectory(tmp_path)) == config


def test_a_run_of_the_first_stage_has_no_settings_of_a_second(first_stage, tmp_path):
    with pytest.raises(InputError) as error:
        second_stage_config(RunDirectory(first_stage))
    assert str(error.value).startswith(f"{first_stage} is a run of the first stage: train a transformer upon it")
    with pytest.raises(InputError, match=rf"^{re.escape(str(tmp_path))} is not a run: it has no config\.yaml$"):
        second_stage_config(RunDirectory(tmp_path))


# ---- what is refused


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        (
            {"transformer": {"layer": 2}},
            "config key 'transformer.layer' is unknown; did you mean 'transformer.layers'?",
        ),
        ({"condition": {"knd": "class"}}, "config key 'condition.knd' is unknown; did you mean 'condition.kind'?"),
        ({"sampling": {"pkeep": 0.9}}, "config key 'sampling.pkeep' is unknown; did you mean 'transformer.pkeep'?"),
        ({"first_stag": "x"}, "config key 'first_stag' is unknown; did you mean 'first_stage'?"),
        ({"quantizer": {"dim": 2}}, "config key 'quantizer' is unknown"),
    ],
)
def test_an_unknown_key_is_told_with_the_nearest(refused, branches, message):
    assert refused(**branches).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order": "spiral_in"}, "code order 'spiral_in' is unknown; did you mean 'spiral-in'?"),
        ({"size": "tamming"}, "transformer size 'tamming' is unknown; did you mean 'taming'?"),
        ({"heads": 3}, "transformer.width 256 is not a multiple of 3 heads"),
        ({"size": "tiny", "heads": 5, "width": 12}, "transformer.width 12 is not a multiple of 5 heads"),
        ({"layers": 0}, "transformer.layers: input should be greater than 0, not 0"),
        ({"pkeep": 1.5}, "transformer.pkeep: input should be less than or equal to 1, not 1.5"),
        ({"sos": -1}, "transformer.sos: input should be greater than or equal to 0, not -1"),
    ],
)
def test_a_transformer_that_cannot_be_is_refused(refused, settings, message):
    assert refused(transformer=settings).startswith(message)


def test_orders_and_sizes_are_all_told(refused):
    assert refused(transformer={"order": "hilbert"}).endswith(f"(choose from {', '.join(sorted(ORDERS))})")
    assert refused(transformer={"size": "large"}).endswith(f"(choose from {', '.join(sorted(SIZES))})")


@pytest.mark.parametrize("kind", ["none", "class", "coordinates", "spatial"])
def test_a_stage_belongs_to_a_spatial_condition_and_to_it_only(second_stage, refused, kind):
    message = "condition.stage, the run of a first stage, belongs to condition.kind spatial, and it only"
    right, wrong = {}, {"stage": "runs/edges"}
    if kind == "spatial":
        right, wrong = wrong, right
    assert refused(condition={"kind": kind, **wrong}) == message
    assert second_stage(condition={"kind": kind, **right}).condition.kind == kind


def test_a_condition_of_another_kind_is_refused(refused):
    assert re.match(
        r"condition\.kind: input should be 'none', 'class', .*, not 'label'$", refused(condition={"kind": "label"})
    )


def test_without_a_condition_there_is_none_to_leave_out(refused):
    message = "condition.drop is for conditions: with condition.kind none there is none to leave out"
    assert refused(condition={"drop": 0.1}) == message


@pytest.mark.parametrize("guidance", [0.0, 3.0])
def test_guidance_is_learned(second_stage, refused, guidance):
    message = (
        f"sampling.guidance {guidance} needs a condition that training leaves out now and then: "
        "condition.kind other than none, and condition.drop such as 0.1"
    )
    assert refused(condition={"kind": "class"}, sampling={"guidance": guidance}) == message
    assert second_stage(condition={"kind": "class"}, sampling={"guidance": 1.0}).sampling.guidance == 1
    assert second_stage(condition={"kind": "class", "drop": 0.1}, sampling={"guidance": guidance}).condition.drop == 0.1


@pytest.mark.parametrize(
    ("settings", "key"),
    [({"count": 1}, "count"), ({"temperature": 0}, "temperature"), ({"top_p": 0}, "top_p"), ({"top_k": 0}, "top_k")],
)
def test_samples_that_cannot_be_drawn_are_refused(refused, settings, key):
    assert refused(sampling=settings).startswith(f"sampling.{key}: input should be greater than")


@pytest.mark.parametrize("settings", [{"guidance": -1}, {"guidance": float("inf")}, {"temperature": float("inf")}])
def test_an_evaluation_is_guided_towards_its_conditions_and_by_numbers(refused, settings):
    assert refused(sampling=settings).startswith(f"sampling.{next(iter(settings))}: input should be ")


def test_a_config_from_before_greedy_was_a_setting_is_read(second_stage):
    before = {"count": 60, "temperature": 0.9, "top_k": 30, "top_p": None, "guidance": 1.0, "seed": 4}
    sampling = second_stage(sampling=before).sampling
    assert sampling.model_dump() == {**before, "greedy": False}
    assert sampling.told() == {name: value for name, value in before.items() if name != "count"}


def test_settings_made_by_hand_are_refused_in_one_line():
    with pytest.raises(InputError, match=r"^count: input should be greater than or equal to 2, not 1$"):
        SamplingSettings.of(count=1)
    with pytest.raises(InputError, match=r"^config key 'topk' is unknown; did you mean 'top_k'\?"):
        SamplingSettings.of(topk=1)


def test_noam_warms_up(second_stage, refused):
    message = "optimizer.schedule noam needs optimizer.warmup_steps of at least 1"
    assert refused(optimizer={"schedule": "noam"}) == message
    assert second_stage(optimizer={"schedule": "noam", "warmup_steps": 1}).optimizer.warmup_steps == 1


def test_a_batch_is_divided_evenly(refused):
    message = "train.batch_size 4 is not a multiple of devices x accumulate = 3"
    assert refused(train={"batch_size": 4, "accumulate": 3}) == message


# ---- what only the runs themselves can tell


def test_a_codebook_of_another_size_is_refused(second_stage, first_stage, tmp_path):
    with pytest.raises(InputError) as error:
        Frozen.of(second_stage(codebook_size=32), RunDirectory(tmp_path))
    assert str(error.value) == (
        f"first stage {first_stage} has 16 codes, codebook_size is 32: leave that out, or choose another run"
    )


def test_images_of_another_size_are_refused(second_stage, first_stage, tmp_path):
    with pytest.raises(InputError) as error:
        Frozen.of(second_stage(data={"image_size": 32}), RunDirectory(tmp_path))
    assert str(error.value) == f"first stage {first_stage} is for images of 16 pixels, data.image_size is 32"


def test_an_unfinished_condition_is_refused(second_stage, first_stage, tmp_path):
    stage = shutil.copytree(first_stage, tmp_path / "edges")
    config = second_stage(condition={"kind": "spatial", "stage": str(stage)})
    assert Frozen.of(config, RunDirectory(tmp_path)).condition is not None
    (stage / "DONE").unlink()
    with pytest.raises(InputError, match=rf"^first stage {re.escape(str(stage))} is not finished"):
        Frozen.of(config, RunDirectory(tmp_path))


def test_a_run_keeps_copies_and_needs_no_other_folder(second_stage, first_stage, tokenizer, tmp_path):
    moved = shutil.copytree(first_stage, tmp_path / "first")
    edges = shutil.copytree(first_stage, tmp_path / "edges")
    settings = load_config(edges / "config.yaml")
    settings["data"]["view"] = "edges"
    (edges / "config.yaml").write_text(yaml.safe_dump(settings))
    config = second_stage(first_stage=str(moved), condition={"kind": "spatial", "stage": str(edges)})
    run = RunDirectory(tmp_path / "second")
    before = Frozen.of(config, run)
    before.save(run)
    shutil.rmtree(moved)
    shutil.rmtree(edges)
    after = Frozen.of(config, run)
    assert after.grid == before.grid == (4, 4)
    assert before.condition is not None
    assert after.condition is not None
    assert after.first.fingerprint == before.first.fingerprint == tokenizer.fingerprint
    assert after.condition.fingerprint == before.condition.fingerprint != tokenizer.fingerprint
    assert after.condition.config.data.view == "edges"


def test_a_copy_of_the_condition_that_is_gone_is_told(second_stage, first_stage, tmp_path):
    config, run = second_stage(condition={"kind": "spatial", "stage": str(first_stage)}), RunDirectory(tmp_path)
    Frozen.of(config, run).save(run)
    copy = run.checkpoints / "condition-stage.ckpt"
    copy.unlink()
    with pytest.raises(InputError, match=rf"^no checkpoint {re.escape(str(copy))}"):
        Frozen.of(config, run)


def test_a_start_token_of_ones_own_is_for_unconditional_sequences(second_stage, refused):
    assert second_stage(transformer={"sos": 0}).transformer.sos == 0
    message = refused(condition={"kind": "class"}, transformer={"sos": 0})
    assert message.startswith("transformer.sos is the start of an unconditional sequence: with condition.kind class")
