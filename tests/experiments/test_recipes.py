import pytest

from vqtool.diagnostics.errors import InputError
from vqtool.experiments.recipes import RECIPES, recipe
from vqtool.vqgan.settings import build_config


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_valid_and_tells_what_it_is_and_costs(name):
    found = recipe(name)
    assert found.about.endswith(".")
    assert found.price
    assert build_config(found.settings) != build_config({})


def test_the_f16_recipes_differ_in_the_codebook_alone():
    small, large = (build_config(recipe(name).settings) for name in ("f16", "f16-16384"))
    assert (small.quantizer.codebook_size, large.quantizer.codebook_size) == (1024, 16_384)
    assert large.model_copy(update={"quantizer": small.quantizer}) == small


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"'cifar'.*did you mean 'cifar10'.*photos"):
        recipe("cifar")
