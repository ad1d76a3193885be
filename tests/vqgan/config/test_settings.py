import inspect
import re

import pytest
import yaml

from vqtool.diagnostics.errors import InputError
from vqtool.diagnostics.run import flatten, load_config
from vqtool.vqgan.autoencoder.networks import Decoder, Encoder
from vqtool.vqgan.autoencoder.settings import AutoencoderConfig, build_autoencoder_config
from vqtool.vqgan.config.base import Settings
from vqtool.vqgan.config.layers import assignment, keys, layer, merge, nest
from vqtool.vqgan.config.spec import parse_spec
from vqtool.vqgan.quantizers import QUANTIZERS, REMEDIES


def refusal(tree):
    """The one line that a tree of settings is refused with."""
    with pytest.raises(InputError) as error:
        build_autoencoder_config(tree)
    assert "\n" not in str(error.value)
    return str(error.value)


# ---- YAML


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"quantizer": {"spec": "gumbel:kl_weight=0.01:straight_through=false+reset:every=7", "dim": 8}},
        {"data": {"cache": "some/folder"}, "optimizer": {"lr": 1e-7, "betas": [0.0, 0.999], "clip_norm": 1.0}},
        {"train": {"precision": "16", "validate_every": None}, "model": {"ch_mult": [1, 2], "attn_resolutions": []}},
    ],
)
def test_a_config_comes_back_from_its_yaml_as_it_was(changes, tmp_path):
    config = build_autoencoder_config(changes)
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert build_autoencoder_config(load_config(path)) == config


def test_the_yaml_tells_every_setting():
    assert sorted(flatten(yaml.safe_load(build_autoencoder_config({}).to_yaml()))) == sorted(keys(AutoencoderConfig))


def test_numbers_without_a_point_are_read_as_numbers():
    assert (
        build_autoencoder_config(yaml.safe_load("optimizer: {lr: 1e-4}\ntrain: {precision: 16}")).optimizer.lr == 1e-4
    )
    assert build_autoencoder_config(yaml.safe_load("train: {precision: 16}")).train.precision == "16"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"train: {steps: 4", "is not YAML"),
        (b"- 1\n- 2\n", "should hold keys and values"),
        (b"", "should hold keys and values"),
        (b"\xff\xfe\x00", "cannot read config"),
        (b"!!python/object/apply:os.getcwd []", "is not YAML"),
    ],
)
def test_a_file_that_is_no_config_is_refused_in_one_line_that_names_it(content, message, tmp_path):
    path = tmp_path / "config.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


# ---- putting trees together


def test_the_later_tree_wins_leaf_by_leaf():
    base = {"train": {"steps": 1, "seed": 2}, "data": {"spec": "photos"}}
    assert merge(base, {"train": {"steps": 5}}) == {"train": {"steps": 5, "seed": 2}, "data": {"spec": "photos"}}
    assert merge(merge(base, {"train": {"steps": 5}}), {"train": {"steps": 6}})["train"]["steps"] == 6
    assert base["train"]["steps"] == 1


def test_a_list_is_a_leaf():
    assert merge({"model": {"ch_mult": [1, 2, 4]}}, {"model": {"ch_mult": [1]}}) == {"model": {"ch_mult": [1]}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.steps=400", {"train": {"steps": 400}}),
        ("model.ch_mult=[1, 2]", {"model": {"ch_mult": [1, 2]}}),
        ("quantizer.spec=gumbel:kl_weight=0.1", {"quantizer": {"spec": "gumbel:kl_weight=0.1"}}),
        ("loss.disc_start=", {"loss": {"disc_start": None}}),
    ],
)
def test_an_assignment_is_a_key_and_a_yaml_value(text, expected):
    assert assignment(text) == expected


@pytest.mark.parametrize("text", ["train.steps", "=4", "train.steps=[1"])
def test_an_assignment_that_is_none_is_refused_in_one_line(text):
    with pytest.raises(InputError) as error:
        assignment(text)
    assert "\n" not in str(error.value)


# ---- what is wrong is said in one line


@pytest.mark.parametrize(
    ("tree", "wrong", "right"),
    [
        ({"trian": {"steps": 3}}, "trian", "train"),
        ({"steps": 3}, "steps", "train.steps"),
        ({"train": {"step": 3}}, "train.step", "train.steps"),
        ({"train": {"commitment_weight": 3}}, "train.commitment_weight", "quantizer.standard.commitment_weight"),
        ({"quantizer": {"codebooksize": 3}}, "quantizer.codebooksize", "quantizer.codebook_size"),
        ({"quantizer": {"ema": {"dekay": 0.9}}}, "quantizer.ema.dekay", "quantizer.ema.decay"),
        ({"quantizer": {"standard": {"decay": 0.9}}}, "quantizer.standard.decay", "quantizer.ema.decay"),
        ({"quantizer": {"spec": "gumbel:kl_wieght=1"}}, "quantizer.gumbel.kl_wieght", "quantizer.gumbel.kl_weight"),
    ],
)
def test_an_unknown_key_at_any_depth_is_named_with_the_nearest_right_one(tree, wrong, right):
    assert refusal(tree).startswith(f"config key {wrong!r} is unknown; did you mean {right!r}")


def test_a_key_that_resembles_none_is_told_its_choices():
    message = refusal({"loss": {"xyzzy": 1}})
    assert "'loss.xyzzy' is unknown (choose from" in message
    assert all(key in message for key in keys(AutoencoderConfig) if key.startswith("loss."))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.steps", "many"),
        ("train.steps", 0),
        ("train.steps", 1.5),
        ("train.device", "gpu"),
        ("train.precision", 8),
        ("train.seed", -1),
        ("train", None),
        ("model.ch", 48),
        ("model.ch_mult", [1, 0]),
        ("model.ch_mult", []),
        ("model.dropout", 1.5),
        ("quantizer.codebook_size", 1),
        ("quantizer.init", "k-means"),
        ("quantizer.spec", 3),
        ("quantizer.gumbel", 3),
        ("quantizer.gumbel", None),
        ("quantizer.ema.decay", 1.0),
        ("quantizer.reset.threshold", 1),
        ("quantizer.reset.source", "latent"),
        ("optimizer.lr", float("inf")),
        ("optimizer.lr", float("nan")),
        ("optimizer.betas", [0.5, 1.0]),
        ("optimizer.betas", [0.5]),
        ("optimizer.schedule", "linear"),
        ("loss.l1_weight", -1),
        ("loss.disc_loss", "wasserstein"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_with_its_key(key, value):
    assert re.fullmatch(rf"{re.escape(key)}: .+, not .+", refusal(nest(key, value)))


def test_a_closed_choice_is_told_in_full():
    assert "'auto', 'cpu' or 'cuda', not 'gpu'" in refusal({"train": {"device": "gpu"}})


def test_keys_that_are_no_words_are_refused():
    assert refusal({1: 2}) == "config: keys should be strings, not 1"


def test_an_image_that_the_model_cannot_halve_is_refused():
    message = refusal({"data": {"image_size": 40}, "model": {"ch_mult": [1, 1, 1, 1, 1]}})
    assert "data.image_size 40 is not a multiple of 16" in message
    assert "model.ch_mult" in message


@pytest.mark.parametrize(("devices", "accumulate"), [(2, 1), (1, 2), (5, 3)])
def test_a_batch_that_cannot_be_shared_out_is_refused(devices, accumulate):
    message = refusal({"train": {"batch_size": 5, "devices": devices, "accumulate": accumulate}})
    assert f"train.batch_size 5 is not a multiple of devices x accumulate = {devices * accumulate}" in message


def test_k_means_is_refused_where_codes_are_not_chosen_by_their_distance():
    assert "kmeans" in refusal({"quantizer": {"spec": "gumbel+reset", "init": "kmeans"}})
    for name in set(QUANTIZERS) - {"gumbel"}:
        build_autoencoder_config({"quantizer": {"spec": name, "init": "kmeans"}})


# ---- views


@pytest.mark.parametrize("view", ["image", "edges", "lowres", "lowres:8", "segmentation:151", "depth"])
def test_a_view_is_part_of_the_config(view):
    config = build_autoencoder_config({"data": {"view": view}})
    assert build_autoencoder_config(yaml.safe_load(config.to_yaml())).data.view == view


def test_a_run_from_before_there_were_views_sees_the_images():
    tree = yaml.safe_load(build_autoencoder_config({}).to_yaml())
    del tree["data"]["view"]
    assert build_autoencoder_config(tree).data.view == "image"


def test_an_unknown_view_is_refused_with_the_nearest():
    assert "view 'edge' is unknown; did you mean 'edges'?" in refusal({"data": {"view": "edge"}})


@pytest.mark.parametrize(("factor", "nearest"), [(3, 2), (5, 4), (200, 64)])
def test_a_low_resolution_that_does_not_divide_the_image_is_refused_with_the_nearest(factor, nearest):
    message = refusal({"data": {"view": f"lowres:{factor}", "image_size": 64}})
    assert f"{factor} does not divide data.image_size 64; the nearest that does is lowres:{nearest}" in message


@pytest.mark.parametrize("loss", [{"perceptual": "vgg"}, {"disc_start": 0}])
def test_labels_are_not_judged_as_images(loss):
    message = refusal({"data": {"view": "segmentation:5"}, "loss": loss})
    key, value = next(iter(loss.items()))
    assert f"loss.{key} {value} judges images, and data.view segmentation:5 has none" in message
    build_autoencoder_config({"data": {"view": "depth"}, "loss": loss})


def test_labels_need_no_reconstruction_term_for_images():
    assert build_autoencoder_config({"data": {"view": "segmentation:5"}, "loss": {"l1_weight": 0}}).loss.l1_weight == 0
    assert "no reconstruction term" in refusal({"data": {"view": "depth"}, "loss": {"l1_weight": 0}})


def test_nothing_changes_after_validation():
    with pytest.raises(ValueError, match="frozen"):
        build_autoencoder_config({}).train.steps = 3  # type: ignore[misc]


# ---- specs


def test_a_spec_names_quantizer_remedies_and_settings():
    spec = parse_spec("gumbel:kl_weight=0.01:kl_warmup_steps=5+reset:every=50:source=codes")
    assert spec.quantizer == "gumbel"
    assert spec.remedies == ("reset",)
    assert spec.settings == {
        "gumbel": {"kl_weight": 0.01, "kl_warmup_steps": 5},
        "reset": {"every": 50, "source": "codes"},
    }


def test_what_a_spec_sets_is_spelled_out_and_the_rest_is_left():
    changes = {"spec": "gumbel:kl_weight=0.01+reset:every=50", "gumbel": {"kl_warmup_steps": 9}}
    quantizer = build_autoencoder_config({"quantizer": changes}).quantizer
    assert (quantizer.gumbel.kl_weight, quantizer.gumbel.kl_warmup_steps) == (0.01, 9)
    assert (quantizer.reset.every, quantizer.reset.threshold) == (50, 0.1)
    assert quantizer.parsed.remedies == ("reset",)


def test_a_setting_against_the_spec_is_refused_since_reports_call_the_run_by_its_spec():
    message = refusal({"quantizer": {"spec": "gumbel:kl_weight=0.01", "gumbel": {"kl_weight": 3}}})
    assert "quantizer.gumbel.kl_weight is 3" in message
    assert "'gumbel:kl_weight=0.01'" in message


def test_the_spec_of_a_later_layer_wins_over_the_settings_of_an_earlier_one():
    earlier = {"quantizer": {"spec": "gumbel", "gumbel": {"kl_weight": 3, "kl_warmup_steps": 9}}}
    later = layer({"quantizer": {"spec": "gumbel:kl_weight=0.01"}})
    quantizer = build_autoencoder_config(merge(earlier, later)).quantizer
    assert (quantizer.gumbel.kl_weight, quantizer.gumbel.kl_warmup_steps) == (0.01, 9)


@pytest.mark.parametrize(
    ("branch", "told"),
    [
        ({"spec": "gumbel:kl_weight=1e-3:straight_through=false"}, "gumbel:straight_through=false:kl_weight=0.001"),
        ({"spec": "gumbel", "gumbel": {"kl_weight": 3}}, "gumbel:kl_weight=3.0"),
        ({"spec": "gumbel:kl_weight=0.0005"}, "gumbel"),
        ({"spec": "gumbel:kl_weight=1e39+reset"}, "gumbel:kl_weight=1e39+reset"),
        ({"spec": "ema + reset", "reset": {"source": "codes"}}, "ema+reset:source=codes"),
        ({"spec": "ema", "gumbel": {"kl_weight": 3}}, "ema"),
        ({}, "standard"),
        ({"standard": {"legacy": True}}, "standard:legacy=true"),
    ],
)
def test_the_spec_of_a_config_tells_what_differs_from_the_defaults(branch, told):
    quantizer = build_autoencoder_config({"quantizer": branch}).quantizer
    assert quantizer.spec == told
    assert build_autoencoder_config({"quantizer": {"spec": told}}).quantizer.spec == told


def test_a_loss_without_reconstruction_is_refused():
    assert "no reconstruction term" in refusal({"loss": {"l1_weight": 0}})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("emma", "quantizer 'emma' is unknown; did you mean 'ema'?"),
        ("", "quantizer '' is unknown"),
        ("ema+rest", "remedy 'rest' is unknown; did you mean 'reset'?"),
        ("reset", "quantizer 'reset' is unknown"),
        ("ema+ema", "remedy 'ema' is unknown"),
        ("ema+reset+reset", "remedy 'reset' stands twice"),
        ("ema:decay", "'decay' in quantizer 'ema:decay' should read key=value"),
        ("ema:decay=", "should read key=value"),
        ("ema:decay=[", "the value '[' of decay in quantizer 'ema:decay=[' cannot be read"),
        ("ema:decay=2", "quantizer.ema.decay: input should be less than 1, not 2"),
    ],
)
def test_a_wrong_spec_is_refused_with_what_is_wrong(spec, message):
    assert message in refusal({"quantizer": {"spec": spec}})


# ---- the tree and the code that it configures cannot drift apart


def parameters(constructor, leave_out=()):
    """Name and default of each keyword-only parameter."""
    signature = inspect.signature(constructor).parameters.values()
    return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY and p.name not in leave_out}


def defaults(branch):
    return {name: field.default for name, field in type(branch).model_fields.items()}


@pytest.mark.parametrize("kind", [*QUANTIZERS.values(), *REMEDIES.values()])
def test_every_setting_of_a_quantizer_and_a_remedy_tells_what_it_is(kind):
    assert all(field.description for field in kind.settings_type.model_fields.values())


@pytest.mark.parametrize("part", [Encoder, Decoder])
def test_the_settings_of_the_model_are_the_parameters_of_the_autoencoder(part):
    model = AutoencoderConfig().model.model_dump()
    expected = parameters(part, leave_out=("in_channels", "out_channels", "resolution"))
    assert model == expected
    assert AutoencoderConfig().data.image_size == parameters(part)["resolution"]


def test_specs_know_every_quantizer_and_remedy_and_no_others():
    allowed = {}
    for kind, spec in (("quantizer", "nothing"), ("remedy", "standard+nothing")):
        allowed[kind] = re.search(r"choose from (.*)\)", refusal({"quantizer": {"spec": spec}}))[1].split(", ")
    assert allowed == {"quantizer": sorted(QUANTIZERS), "remedy": sorted(REMEDIES)}


def test_the_tree_has_a_branch_for_every_quantizer_and_remedy():
    branches = {name for name, value in AutoencoderConfig().quantizer if isinstance(value, Settings)}
    assert branches == {*QUANTIZERS, *REMEDIES}
