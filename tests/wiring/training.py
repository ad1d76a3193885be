"""Faults of the training loop: what the optimizer does not hold, or holds and shrinks."""

from collections.abc import Callable
from operator import attrgetter

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from wiring.base import Bug, SetUp, VQModel, with_images
from wiring.symptoms import decaying, gradient_free, motionless
from wiring.tables import CODES, Taming

table = attrgetter(CODES)


def rest(model: nn.Module) -> list[nn.Parameter]:
    """All parameters but the codes."""
    return [parameter for parameter in model.parameters() if parameter is not table(model)]


def encoder_and_decoder_only(model: VQModel) -> Optimizer:
    """Listed module by module, and the quantizer forgotten."""
    parts = (model.encoder, model.quant_conv, model.post_quant_conv, model.decoder)
    return Adam([parameter for part in parts for parameter in part.parameters()], lr=1e-3)


def all_parts(model: VQModel) -> Optimizer:
    parts = (model.encoder, model.quant_conv, model.quantize, model.post_quant_conv, model.decoder)
    return Adam([parameter for part in parts for parameter in part.parameters()], lr=1e-3)


def two_rates(rate: float) -> Callable[[nn.Module], Optimizer]:
    return lambda model: Adam([{"params": rest(model)}, {"params": [table(model)], "lr": rate}], lr=1e-3)


def spared(model: nn.Module) -> Optimizer:
    """AdamW whose decay leaves the codes alone."""
    return AdamW([{"params": rest(model)}, {"params": [table(model)], "weight_decay": 0.0}], lr=1e-2, weight_decay=0.1)


def re_created() -> SetUp:
    """The codes were started from data after the optimizer was made, in a new module."""
    setup = with_images(Taming)()
    quantize = setup.model.quantize
    fresh = nn.Embedding.from_pretrained(quantize.embedding.weight.detach().clone() + 0.01, freeze=False)
    quantize.embedding = fresh
    return setup


def rewritten() -> SetUp:
    """The same start, written into the parameter that the optimizer holds."""
    setup = with_images(Taming)()
    with torch.no_grad():
        setup.model.quantize.embedding.weight.add_(0.01)
    return setup


class Frozen(Taming):
    """Codes that were taken from a trained model and are to be trained on; the freeze was never lifted."""

    def __init__(self):
        super().__init__()
        self.embedding.weight.requires_grad_(False)


def trained_by(optimizer: Callable[[VQModel], Optimizer]):
    return with_images(Taming, optimizer=optimizer)


def bug(make, check, source, symptom, twin) -> Bug:
    return Bug(make, (check,), CODES, source, symptom, twin)


MOTIONLESS, DECAYING = motionless(CODES), decaying(CODES)

TRAINING_BUGS = {
    "quantizer not in the optimizer": bug(
        trained_by(encoder_and_decoder_only),
        "optimizer",
        "lucidrains/magvit2-pytorch#4",
        MOTIONLESS,
        "module by module",
    ),
    "learning rate of zero": bug(
        trained_by(two_rates(0.0)), "optimizer", "planted: a schedule", MOTIONLESS, "two rates"
    ),
    "codes made anew": bug(
        re_created, "optimizer", "planted: k-means into a new nn.Embedding", MOTIONLESS, "rewritten"
    ),
    "codes frozen": bug(
        with_images(Frozen),
        "codebook-gradient",
        "lucidrains/vector-quantize-pytorch#68",
        gradient_free(CODES),
        "taming",
    ),
    "decoupled decay": bug(
        trained_by(lambda model: AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)),
        "weight-decay",
        "lucidrains/vector-quantize-pytorch#170: AdamW",
        DECAYING,
        "decay without the codes",
    ),
    "coupled decay": bug(
        trained_by(lambda model: Adam(model.parameters(), lr=1e-3, weight_decay=1e-2)),
        "weight-decay",
        "planted: Adam(weight_decay=...), which moves idle codes at full rate",
        DECAYING,
        "taming",
    ),
}

TRAINING_CLEAN = {
    "module by module": trained_by(all_parts),
    "two rates": trained_by(two_rates(1e-2)),
    "rewritten": rewritten,
    "decay without the codes": trained_by(spared),
    "plain SGD": trained_by(lambda model: SGD(model.parameters(), lr=0.1)),
}
