"""Named configs that tell their price."""

from typing import Any, NamedTuple

from ..diagnostics.errors import unknown


class Recipe(NamedTuple):
    """A named tree of settings.

    Attributes:
        about: What it reproduces or is for.
        price: What it cost where it was measured, and the figures to expect.
        settings: What it sets; everything else keeps its default.
        stage: Which stage it is for, ``vqgan`` or ``transformer``.
        then: For a first stage: the recipe of the second stage that goes with it.
    """

    about: str
    price: str
    settings: dict[str, Any]
    stage: str = "vqgan"
    then: str = "codes"


SHORT: dict[str, Any] = {
    "steps": 400,
    "batch_size": 32,
    "every": 10,
    "log_every": 10,
    "validate_every": 100,
    "checkpoint_every": 100,
}
SMALL: dict[str, Any] = {
    "data": {"spec": "photos", "image_size": 32},
    "model": {"ch": 32, "ch_mult": [1, 2, 2], "num_res_blocks": 1, "attn_resolutions": [], "z_channels": 64},
    "quantizer": {"codebook_size": 512, "dim": 64},
    "optimizer": {"lr": 1e-3},
    "train": SHORT,
}

CODES: dict[str, Any] = {
    "transformer": {"size": "tiny"},
    "optimizer": {"lr": 1e-3, "warmup_steps": 100, "schedule": "cosine", "clip_norm": 1.0},
    "train": SHORT,
}

RECIPES: dict[str, Recipe] = {
    "photos": Recipe(
        "Watch a codebook die within a minute: random 32 x 32 crops of the photographs inside scikit-image, K = 512.",
        "0.3 s a step on two CPU cores: two minutes for 400 steps. After 200 steps (make demo, seed 0) standard used "
        "33 codes of 512 in the test split, ema 28, gumbel 78.",
        SMALL,
    ),
    "cifar10": Recipe(
        "The ablation of docs/results.md: 32 x 32 colour images in folders (give --data folder:PATH), K = 1024.",
        "1,000 steps took 13 to 17 minutes on one busy CPU core. In the test split standard then used 48 codes of "
        "1,024 (PSNR 20.0 dB), ema 28 (20.0), gumbel 132 (18.6), entropy 69 (19.6), standard+reset 1,024 (22.2) and "
        "ema+reset 1,024 (22.6); one seed, docs/results.md.",
        {
            **SMALL,
            "quantizer": {"codebook_size": 1024, "dim": 64},
            "train": {**SHORT, "steps": 1000, "validate_every": 500, "checkpoint_every": 500},
        },
        then="codes-cifar10",
    ),
    "f16": Recipe(
        "VQGAN f16 of Esser et al. 2021 (arXiv:2012.09841): 256 x 256 crops, K = 1024, LPIPS (vgg) and PatchGAN "
        "from step 10,000. Needs --data folder:PATH and the VGG weights in the torch hub cache.",
        "Needs a GPU, and was not measured on one. On two CPU cores a step of one image took 8 s (three steps, without "
        "LPIPS and discriminator). 72.1 M parameters.",
        {"loss": {"perceptual": "vgg", "disc_start": 10_000}, "train": {"batch_size": 12}},
        then="codes-f16",
    ),
    "f16-16384": Recipe(
        "The same with K = 16,384.",
        "Not run; the first stage of f16 plus 3.9 M parameters of codebook.",
        {
            "quantizer": {"codebook_size": 16_384},
            "loss": {"perceptual": "vgg", "disc_start": 10_000},
            "train": {"batch_size": 12},
        },
        then="codes-f16",
    ),
    "codes": Recipe(
        "A second stage of minutes: a transformer of 4 layers and width 128 over the codes of a small first stage.",
        "66 s for 400 steps on two CPU cores, over the codes of the recipe photos (ema+reset, by class): 2.94 nats per "
        "token in the test split.",
        CODES,
        stage="transformer",
    ),
    "codes-cifar10": Recipe(
        "The second stage of docs/results.md: the codes of CIFAR-10 by class, a tenth of them without their class, so "
        "that samples can be guided.",
        "4,000 steps took 40 minutes on a busy CPU core, 27 on a quieter one. Over the 1,024 codes of ema+reset the "
        "test split then had 5.56 nats per token, over the 55 codes that standard left alive 2.85; docs/results.md.",
        {
            **CODES,
            "condition": {"kind": "class", "drop": 0.1},
            "train": {
                **SHORT,
                "steps": 4000,
                "batch_size": 64,
                "every": 20,
                "log_every": 20,
                "validate_every": 500,
                "checkpoint_every": 500,
            },
        },
        stage="transformer",
    ),
    "codes-f16": Recipe(
        "The transformer of the FacesHQ, D-RIN and S-FLCKR models of Esser et al. 2021 (arXiv:2012.09841): 24 layers, "
        "16 heads, width 1024, for the 256 codes of f16.",
        "Needs a GPU, and was not run. 304 M parameters.",
        {"transformer": {"size": "taming"}, "train": {"batch_size": 12, "steps": 500_000, "validate_images": 96}},
        stage="transformer",
    ),
}


def recipe(name: str, stage: str = "vqgan") -> Recipe:
    """The recipe of that name for a stage.

    Raises:
        InputError: There is none.
    """
    if name not in (names := [name for name, recipe in RECIPES.items() if recipe.stage == stage]):
        raise unknown(f"{stage} recipe" if name in RECIPES else "recipe", name, names)
    return RECIPES[name]
