"""What learns in the first stage."""

from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from ...diagnostics import CodebookMonitor
from ...diagnostics.ranks import from_first_rank, mean_over_ranks, rows_of_all_ranks
from ..data import Batches, Images
from ..data.batches import spread
from ..data.views import view_named
from ..quantizers import REMEDIES, DeadCodeReset, LearnedQuantizer
from ..quantizers.base import Quantizer, QuantizerOutput, to_tokens
from ..quantizers.kmeans import kmeans
from ..training.devices import gradients_by_hand
from ..training.learner import Learner, Losses, mean_losses
from ..training.optimization import adam
from ..training.randomness import seeded
from .discriminator import NLayerDiscriminator
from .model import VQModel, build_model
from .objective import Adversary, reconstruction_loss
from .settings import AutoencoderConfig

CODEBOOK = "quantize"
#: Images of the validation split that are encoded for every record, to see codes and latents change.
REFERENCE = 16


class AutoencoderLearner(Learner[VQModel]):
    """The autoencoder with its discriminator, their optimizers, the remedies, and the instrument that watches.

    Args:
        fabric: Where and in what precision.
        config: The settings of the run.

    Raises:
        InputError: The weights of the perceptual network are not to be had, or the images are too small for it or for
            the discriminator.
    """

    monitor: CodebookMonitor

    def __init__(self, fabric: Fabric, config: AutoencoderConfig):
        self.config = config
        self.view = view_named(config.data.view)
        model: VQModel = fabric.to_device(build_model(config))  # type: ignore[assignment]
        self.reconstruction: nn.Module = fabric.to_device(reconstruction_loss(config))  # type: ignore[assignment]
        optimizer = adam(model.parameters(), config.optimizer)
        monitor = CodebookMonitor(model, optimizer, every=config.train.every)
        self.remedies = _remedies(config, model.quantize, optimizer)
        super().__init__(fabric, config, model, optimizer, monitor)
        self.adversary = self._adversary() if config.loss.disc_start is not None else None
        self._look_at_a_blank()

    def watch_reference(self, images: Images) -> None:
        """Have the instrument compare, from record to record, how ``REFERENCE`` of these images are encoded."""
        chosen, _ = images.batch(spread(min(REFERENCE, len(images)), len(images)))
        self.monitor.watch_reference(lambda: self.model.encode(self.view.load(chosen, self.fabric.device)))

    @torch.no_grad()
    def _look_at_a_blank(self) -> None:
        """Have the networks that judge images refuse a size that is too small for them now, not when they join in."""
        size = self.config.data.image_size
        blank = torch.zeros(1, self.view.channels, size, size, device=self.fabric.device)
        self.reconstruction(blank, blank)
        if self.adversary is not None:
            self.adversary.network.eval()(blank)
            self.adversary.network.train()

    def _adversary(self) -> Adversary:
        loss = self.config.loss
        with seeded(self.config.train.seed + 2):
            discriminator = NLayerDiscriminator(ndf=loss.disc_channels, n_layers=loss.disc_layers)
        if self.fabric.world_size > 1 and self.fabric.device.type == "cuda":
            discriminator = torch.nn.SyncBatchNorm.convert_sync_batchnorm(discriminator)
        wrapped, optimizer = self.fabric.setup(discriminator, adam(discriminator.parameters(), self.config.optimizer))
        scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        return Adversary(wrapped, optimizer, loss, reduce=mean_over_ranks, scale=scaler and scaler.scale)

    @torch.no_grad()
    def start_codebook(self, batches: Batches) -> None:
        """k-means of the first batches' latents, where the settings ask for it; the same codes on every rank.

        The tokens of all micro-batches and ranks take part: how a batch is divided does not change the codes, but for
        what an encoder rounds off in batches of another size.
        """
        settings = self.config.quantizer
        quantizer = self.model.quantize
        if settings.init != "kmeans" or not isinstance(quantizer, LearnedQuantizer):
            return
        self.model.eval()
        tokens = torch.cat([self._tokens_of_batch(batches, step) for step in range(settings.kmeans_batches)])
        generator = torch.Generator().manual_seed(self.config.train.seed)
        codes = from_first_rank(kmeans(tokens, settings.codebook_size, generator))
        quantizer.overwrite(torch.arange(settings.codebook_size, device=codes.device), codes)

    def _tokens_of_batch(self, batches: Batches, step: int) -> Tensor:
        """(N, D) tokens of all micro-batches and ranks, in the order in which a single process has them."""
        images = (self._images(batches, step, micro) for micro in range(self.config.train.accumulate))
        return rows_of_all_ranks(torch.cat([to_tokens(self.model.latents(part)) for part in images]))

    def _images(self, batches: Batches, step: int, micro: int) -> Tensor:
        return self.view.load(batches(step, micro)[0], self.fabric.device)

    def step(self, step: int, batches: Batches) -> Losses:
        """Optimizer step ``step`` (from 0): both sides of the game from one forward of the autoencoder.

        Returns:
            The unweighted parts of the losses by group and name, means over micro-batches, on the device.
        """
        self.model.train()
        start = self.config.loss.disc_start
        adversary = self.adversary if start is not None and step >= start else None
        self.set_rate(self.config.optimizer, step, self.optimizer)
        pairs, losses = self._autoencoder_step(step, batches, adversary)
        if adversary is not None:
            self.set_rate(self.config.optimizer, step, adversary.optimizer)
            losses |= self._discriminator_step(pairs, adversary)
        self.model.quantize.end_step()
        for remedy in self.remedies:
            if (codes := remedy.step()) is not None:
                self.monitor.count_resets(CODEBOOK, codes)
                counts = {"reset/codes": remedy.revived, "reset/repeats": remedy.repeats}
                losses |= {name: torch.tensor(float(count), device=codes.device) for name, count in counts.items()}
        return losses

    def _autoencoder_step(
        self, step: int, batches: Batches, adversary: Adversary | None
    ) -> tuple[list[tuple[Tensor, Tensor]], Losses]:
        """The autoencoder's update; with an adversary also the (images, reconstructions) of each micro-batch."""
        pairs, parts = [], []

        def loss_of(micro: int) -> Tensor:
            images = self._images(batches, step, micro)
            reconstructions, output = self.wrapped(images)
            total, losses = self._objective(images, reconstructions, output, adversary)
            if adversary is not None:
                pairs.append((images, reconstructions.detach()))
            parts.append(losses)
            return total

        self.descend(self.wrapped, self.optimizer, loss_of, self.config.optimizer.clip_norm)
        self.monitor.step_over()
        return pairs, mean_losses(parts)

    def _objective(
        self, images: Tensor, reconstructions: Tensor, output: QuantizerOutput, adversary: Adversary | None
    ) -> tuple[Tensor, Losses]:
        with self.fabric.autocast():
            nll, parts = self.reconstruction(images, reconstructions)
            weight, share = self.config.loss.quantizer_weight, 1 / self.config.train.accumulate
            total = nll + weight * output.loss
            with gradients_by_hand():
                self.monitor.loss_terms(
                    {"reconstruction": (1.0, share * nll), "quantizer": (weight, share * output.loss)}
                )
            losses = _named("loss", {**parts, "nll": nll, "quantizer": output.loss}) | _named(
                "quantizer", output.losses
            )
            if adversary is not None:
                generator, sides = adversary.generator_side(nll, reconstructions, self.model.decoder.conv_out.weight)
                total = total + generator
                losses |= _named("gan", sides)
        return total, losses | _named("loss", {"total": total})

    def _discriminator_step(self, pairs: list[tuple[Tensor, Tensor]], adversary: Adversary) -> Losses:
        parts = []

        def loss_of(micro: int) -> Tensor:
            with self.fabric.autocast():
                loss, sides = adversary.discriminator_side(*pairs[micro])
            parts.append(_named("gan", sides))
            return loss

        self.descend(adversary.discriminator, adversary.optimizer, loss_of)
        return mean_losses(parts)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {
            "discriminator": self.adversary and self.adversary.network.state_dict(),
            "disc_optimizer": self.adversary and self.adversary.optimizer.state_dict(),
            "remedies": [remedy.state_dict() for remedy in self.remedies],
        }

    def load_state_dict(self, state: dict[str, Any], load_weights: Callable[[nn.Module, Any], None]) -> None:
        super().load_state_dict(state, load_weights)
        if self.adversary is not None and state["discriminator"] is not None:
            load_weights(self.adversary.network, state["discriminator"])
            self.adversary.optimizer.load_state_dict(state["disc_optimizer"])
        for remedy, remedy_state in zip(self.remedies, state["remedies"], strict=True):
            remedy.load_state_dict(remedy_state)


def _remedies(config: AutoencoderConfig, quantizer: Quantizer, optimizer: torch.optim.Optimizer) -> list[DeadCodeReset]:
    if not isinstance(quantizer, LearnedQuantizer):
        return []
    settings = config.quantizer
    return [
        REMEDIES[name](quantizer, optimizer, seed=config.train.seed, **settings.of(name).model_dump())
        for name in settings.parsed.remedies
    ]


def _named(group: str, losses: Losses) -> Losses:
    return {f"{group}/{name}": loss.detach() for name, loss in losses.items()}
