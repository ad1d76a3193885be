"""The columns of TensorBoard's HPARAMS page: what is told first, and that runs of an ablation tell the same."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from torch.utils.tensorboard import SummaryWriter

from vqtool.diagnostics.run import flatten
from vqtool.vqgan.autoencoder.settings import build_autoencoder_config
from vqtool.vqgan.config.layers import layer, merge
from vqtool.vqgan.training.hparams import FIRST, UNTOLD, add_hparams, changed, figures_first, told_first
from vqtool.vqgan.transformer.settings import build_transformer_config

OF_A_FIRST_STAGE = [
    "quantizer.spec",
    "quantizer.codebook_size",
    "train.seed",
    "optimizer.lr",
    "train.steps",
    "data.spec",
]
SPECS = ("standard", "ema+reset:every=50", "gumbel:kl_weight=0.02", "entropy:temperature=0.5+reset")
FIGURES = {
    "split": "test",
    "images": 4,
    "l1": 0.1,
    "psnr": 20.0,
    "ssim": 0.5,
    "lpips": None,
    "codebook_size": 16,
    "codes_used_split": 7,
    "perplexity_split": 3.5,
    "tokens": 64,
    "missing": {"lpips": "no weights"},
}


def config(**branches):
    return build_autoencoder_config(layer(branches))


def written(folder, config, figures=FIGURES):
    """The experiment, the values of the session and the scalars in the event file."""
    with SummaryWriter(str(folder)) as writer:
        add_hparams(writer, config, figures, 12)
    found = EventAccumulator(str(folder)).Reload()
    experiment = found.summary_metadata[metadata.EXPERIMENT_TAG].plugin_data.content
    start = found.summary_metadata[metadata.SESSION_START_INFO_TAG].plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(start).hparams
    scalars = {tag: found.Scalars(tag)[-1] for tag in found.Tags()["scalars"]}
    return metadata.parse_experiment_plugin_data(experiment), values, scalars


def shown(experiment):
    """The columns as TensorBoard's server sorts them, by the names that it shows."""
    return [
        each.display_name for each in sorted(experiment.hparam_infos, key=lambda each: (not each.differs, each.name))
    ]


def test_what_a_run_is_known_by_comes_first_and_then_what_was_set():
    first, _ = told_first(config())
    assert first == OF_A_FIRST_STAGE
    first, then = told_first(config(train={"batch_size": 4, "seed": 3}, data={"flip": False}, loss={"l2_weight": 1}))
    assert first == [*OF_A_FIRST_STAGE, "data.flip", "loss.l2_weight", "train.batch_size"]
    assert then == sorted(then)
    assert "optimizer.betas" in then


def test_a_transformer_is_known_by_its_size_and_its_condition():
    settings = build_transformer_config({"first_stage": "runs/a", "codebook_size": 16, "transformer": {"pkeep": 0.9}})
    known = ["transformer.size", "condition.kind", "train.seed", "optimizer.lr", "train.steps", "data.spec"]
    assert told_first(settings)[0] == [*known, "codebook_size", "first_stage", "transformer.pkeep"]


def test_every_setting_is_told_once_but_for_those_that_change_no_result():
    told = [name for names in told_first(config()) for name in names]
    assert len(told) == len(set(told))
    assert set(told) == set(flatten(config().model_dump())) - UNTOLD


def test_what_changes_no_result_is_told_where_it_was_set():
    first, then = told_first(config(data={"cache": "elsewhere"}, train={"tensorboard": False}))
    assert first[-2:] == ["data.cache", "train.tensorboard"]
    assert not {"data.download", "train.device"} & {*first, *then}


def test_the_names_are_those_of_settings():
    settings = build_transformer_config({"first_stage": "runs/a", "codebook_size": 16})
    assert {*FIRST, *UNTOLD} <= {*flatten(config().model_dump()), *flatten(settings.model_dump())}


def test_what_a_spec_says_is_not_told_again():
    assert changed(config(quantizer={"spec": "gumbel:kl_weight=0.02"})) == {"quantizer.spec"}
    alone = config(quantizer={"spec": "gumbel", "gumbel": {"kl_weight": 0.02}})
    assert changed(alone) == {"quantizer.spec"}


@pytest.mark.parametrize("shared", [{}, {"train": {"every": 5}, "quantizer": {"reset": {"noise": 0.5}}}])
def test_the_runs_of_an_ablation_have_the_same_columns(tmp_path, shared):
    columns = []
    for spec in SPECS:
        for seed in (0, 1):
            settings = config(**merge(shared, {"quantizer": {"spec": spec}, "train": {"seed": seed}}))
            # A figure that was not to be had in one of the runs
            figures = FIGURES | {"psnr": None if seed else 20.0}
            experiment, values, _ = written(tmp_path / f"{spec}-{seed}".replace(":", ","), settings, figures)
            names = [each.name for each in experiment.hparam_infos]
            assert set(names) == set(values)
            columns.append((names, shown(experiment), [each.name.tag for each in experiment.metric_infos]))
    assert all(each == columns[0] for each in columns)


def test_runs_with_other_settings_name_what_they_share_alike(tmp_path):
    one, _, _ = written(tmp_path / "one", config())
    other, _, _ = written(tmp_path / "other", config(data={"flip": False}, train={"batch_size": 4, "device": "cpu"}))
    assert {each.name for each in other.hparam_infos} - {each.name for each in one.hparam_infos} == {"train.device"}


def test_the_columns_stand_in_order_in_the_file_and_as_the_server_sorts_them(tmp_path):
    settings = config(train={"batch_size": 4}, quantizer={"codebook_size": 16})
    experiment, values, _ = written(tmp_path, settings)
    told = [name for names in told_first(settings) for name in names]
    assert [each.display_name for each in experiment.hparam_infos] == told
    assert shown(experiment) == told
    assert told[:7] == [*OF_A_FIRST_STAGE, "train.batch_size"]
    by_title = {each.display_name: values[each.name] for each in experiment.hparam_infos}
    assert by_title["quantizer.spec"].string_value == "standard"
    assert by_title["quantizer.codebook_size"].number_value == 16


def test_codes_used_perplexity_and_psnr_are_the_first_figures_and_sizes_the_last(tmp_path):
    experiment, _, scalars = written(tmp_path, config())
    names = ["codes_used_split", "perplexity_split", "psnr", "l1", "ssim", "lpips", "images", "codebook_size", "tokens"]
    assert [each.name.tag for each in experiment.metric_infos] == [f"test/{name}" for name in names]
    assert set(scalars) == {f"test/{name}" for name in names} - {"test/lpips"}
    assert (scalars["test/codes_used_split"].value, scalars["test/codes_used_split"].step) == (7, 12)


def test_of_a_transformer_the_likelihood_comes_first():
    figures = {"split": "test", "images": 4, "nll": 2.0, "top1": 0.3, "bits_per_dim": 0.1, "total_variation": None}
    assert figures_first(figures) == ["nll", "bits_per_dim", "total_variation", "top1", "images"]
