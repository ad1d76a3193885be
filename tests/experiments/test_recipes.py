import pytest

from vqtool.diagnostics.errors import InputError
from vqtool.experiments.recipes import RECIPES, recipe
from vqtool.vqgan.autoencoder.settings import build_autoencoder_config
from vqtool.vqgan.transformer.settings import build_transformer_config

FIRST_STAGE = {"first_stage": "nowhere", "codebook_size": 16}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_tells_what_it_is_and_costs(name):
    assert RECIPES[name].about.endswith(".")
    assert RECIPES[name].price.endswith(".")


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].stage == "vqgan"])
def test_a_recipe_of_a_first_stage_is_valid_and_so_is_the_one_that_goes_with_it(name):
    assert build_autoencoder_config(recipe(name).settings) != build_autoencoder_config({})
    assert recipe(recipe(name).then, "transformer")


@pytest.mark.parametrize("name", [name for name in RECIPES if RECIPES[name].stage == "transformer"])
def test_a_recipe_of_a_second_stage_is_valid(name):
    settings = recipe(name, "transformer").settings
    assert build_transformer_config(settings | FIRST_STAGE) != build_transformer_config(FIRST_STAGE)


def test_a_recipe_of_the_other_stage_is_answered_with_those_of_this_one():
    with pytest.raises(InputError, match=r"transformer recipe 'photos'.*codes, codes-cifar10, codes-f16"):
        recipe("photos", "transformer")


def test_the_f16_recipes_differ_in_the_codebook_alone():
    small, large = (build_autoencoder_config(recipe(name).settings) for name in ("f16", "f16-16384"))
    assert (small.quantizer.codebook_size, large.quantizer.codebook_size) == (1024, 16_384)
    assert large.model_copy(update={"quantizer": small.quantizer}) == small


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"'cifar'.*did you mean 'cifar10'.*photos"):
        recipe("cifar")
