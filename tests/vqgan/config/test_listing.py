"""Every setting is listed with what a user needs to know of it."""

import re

import pytest
import yaml
from tiny import assert_refused, call

from vqtool.diagnostics import InputError
from vqtool.diagnostics.run import flatten
from vqtool.vqgan.autoencoder.settings import AutoencoderConfig
from vqtool.vqgan.config.layers import keys
from vqtool.vqgan.config.listing import settings_below
from vqtool.vqgan.transformer.settings import TransformerConfig

TREES = {"vqgan": AutoencoderConfig, "transformer": TransformerConfig}


@pytest.mark.parametrize("stage", TREES)
def test_every_setting_of_a_tree_is_listed_once_with_a_sentence(stage):
    listed = settings_below(TREES[stage])
    assert [setting.name for setting in listed] == keys(TREES[stage])
    assert [setting.name for setting in listed if not re.match(r"[A-Z`a-z].*[.:;]", setting.about)] == []


def test_the_default_that_is_listed_is_the_default():
    defaults = flatten(AutoencoderConfig().model_dump(mode="json"))
    for setting in settings_below(AutoencoderConfig):
        read = yaml.safe_load(setting.default)
        assert read == defaults[setting.name] or float(read) == defaults[setting.name], setting.name


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("train.steps", "whole number, > 0"),
        ("train.validate_every", "whole number > 0 | null"),
        ("quantizer.init", "default | uniform | normal | kmeans"),
        ("quantizer.ema.decay", "number, >= 0, < 1"),
        ("model.ch", "whole number, > 0, a multiple of 32"),
        ("optimizer.betas", "[number >= 0 < 1, number >= 0 < 1]"),
        ("data.flip", "true | false"),
    ],
)
def test_bounds_and_choices_are_told(name, allowed):
    (setting,) = settings_below(AutoencoderConfig, name)
    assert setting.allowed == allowed


def test_a_prefix_is_a_branch_and_not_the_beginning_of_a_word():
    names = [setting.name for setting in settings_below(AutoencoderConfig, "quantizer.gumbel")]
    assert names
    assert all(name.startswith("quantizer.gumbel.") for name in names)
    assert settings_below(AutoencoderConfig, "quantizer.gumbel.") == settings_below(
        AutoencoderConfig, "quantizer.gumbel"
    )
    with pytest.raises(InputError, match="setting 'optimzer' is unknown; did you mean 'optimizer'"):
        settings_below(AutoencoderConfig, "optimzer")


def test_the_command_prints_them(place):
    answer = call("settings", "quantizer.reset")
    assert answer.code == 0
    assert "quantizer.reset.every = 100 (whole number, > 0)" in answer.out
    assert "Optimizer steps between two resets" in answer.out
    assert "condition.drop = 0.0" in call("settings", "--stage", "transformer").out
    assert_refused(*call("settings", "quantiser")[::2], "'quantiser' is unknown; did you mean 'quantizer'?")
    assert_refused(*call("settings", "--stage", "vqgn")[::2], "'vqgn' is unknown; did you mean 'vqgan'?")
