"""The adversarial losses of VQGAN and the weight that balances them against the reconstruction.

``real`` and ``fake`` are discriminator logits of any shape; each loss is a scalar. Source throughout:
CompVis/taming-transformers, ``modules/losses/vqperceptual.py``.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def hinge_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """0.5 (mean relu(1 - real) + mean relu(1 + fake)).

    Source: Lim & Ye, "Geometric GAN" (2017), eq. 15, halved as in taming-transformers.
    """
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + fake).mean())


def vanilla_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """0.5 (mean softplus(-real) + mean softplus(fake)): binary cross-entropy of the logits, halved.

    Source: Goodfellow et al., "Generative Adversarial Nets" (2014), eq. 1.
    """
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


DISCRIMINATOR_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "hinge": hinge_discriminator_loss,
    "vanilla": vanilla_discriminator_loss,
}


def generator_loss(fake: Tensor) -> Tensor:
    """-mean(fake): what the decoder minimizes, whichever of the discriminator losses is in use."""
    return -fake.mean()


def adaptive_weight(
    nll: Tensor,
    generator: Tensor,
    last_layer_weight: Tensor,
    reduce: Callable[[Tensor], Tensor] | None = None,
    scale: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The weight lambda that gives both losses the same pull on the last layer of the decoder.

    lambda = |d nll / d w| / (|d generator / d w| + 1e-4), clamped to [0, 1e4] and detached; L2 norms. Costs two partial
    backward passes and keeps the graph: call it only once the discriminator takes part.

    Under float16 small gradients underflow on their way to w, and lambda becomes 0. With ``scale`` they are taken of
    scaled losses, as those of the training are, and their norms are unscaled in float32 before they meet the 1e-4.

    Source: Esser et al., "Taming Transformers for High-Resolution Image Synthesis" (2021), eq. 7; the 1e-4 and the
    clamp are taming-transformers'.

    Args:
        nll: Scalar reconstruction loss (pixels and perceptual).
        generator: Scalar generator loss.
        last_layer_weight: w, ``Decoder.conv_out.weight``; both losses must depend on it.
        reduce: Applied to each gradient before its norm, such as the mean over ranks; None where there is one rank.
        scale: Multiplies a loss on its device, such as ``GradScaler.scale``; None where gradients are not scaled.

    Returns:
        lambda, a scalar without gradient; NaN where a scaled gradient overflows, of which nothing can be said.
    """
    norms = []
    for loss in (nll, generator):
        (gradient,) = torch.autograd.grad(scale(loss) if scale else loss, last_layer_weight, retain_graph=True)
        gradient = gradient.float() if scale else gradient
        norms.append((reduce(gradient) if reduce else gradient).norm())
    if scale:
        norms = [norm.where(norm.isfinite(), torch.nan) / scale(torch.ones_like(norm)) for norm in norms]
    return (norms[0] / (norms[1] + 1e-4)).clamp(0.0, 1e4).detach()
