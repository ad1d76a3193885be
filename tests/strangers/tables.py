"""Tables of codes: diffusers and transformers."""

import numpy as np
import torch
from diffusers import VQModel
from diffusers.models.autoencoders.vae import VectorQuantizer
from torch import Tensor, nn
from transformers.models.chameleon.configuration_chameleon import ChameleonVQVAEConfig
from transformers.models.chameleon.modeling_chameleon import ChameleonVQVAEVectorQuantizer
from transformers.models.dac.configuration_dac import DacConfig
from transformers.models.dac.modeling_dac import DacResidualVectorQuantizer, DacVectorQuantize
from transformers.models.emu3.configuration_emu3 import Emu3VQVAEConfig
from transformers.models.emu3.modeling_emu3 import Emu3VQVAEVectorQuantizer
from transformers.models.glm_image.configuration_glm_image import GlmImageVQVAEConfig
from transformers.models.glm_image.modeling_glm_image import GlmImageVQVAEVectorQuantizer
from transformers.models.janus.configuration_janus import JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAEVectorQuantizer

from strangers.base import Seen, Stranger, Tokens, flat, on_return

K, D = 16, 4


def unit(vectors: Tensor) -> Tensor:
    return vectors / vectors.norm(dim=-1, keepdim=True)


def nearest(z: Tensor, table: Tensor) -> Tensor:
    """By hand: the first of the nearest codes of each token."""
    return torch.tensor([int((table - each).square().sum(1).argmin()) for each in z])


def embedding(module: nn.Module) -> Tensor:
    table = getattr(module, "embedding", None)
    return (module.codebook if table is None else table).weight.detach()


def spy_table(module: nn.Module, seen: Seen, name: str = "vq", axis: int = 1, scaled: bool = False) -> None:
    """By hand: the nearest code to each token."""

    def tell(args, kwargs, output):
        z, table = flat(args[0], axis), embedding(module)
        if scaled:
            z, table = unit(z), unit(table)
        indices = nearest(z, table)
        seen(name, Tokens(indices, z, table[indices]))

    on_return(module, tell)


def spread_out(module: nn.Module) -> nn.Module:
    nn.init.normal_(module.embedding.weight)
    return module


def table(build, shape=(2, D, 3, 3), scaled=False, axis=1, call=None) -> Stranger:
    return Stranger(
        lambda: spread_out(build()),
        shape,
        lambda module, seen: spy_table(module, seen, axis=axis, scaled=scaled),
        lambda module: {"vq": unit(embedding(module)) if scaled else embedding(module)},
        call,
    )


def remapping(tmp: list[str], **settings):
    """A quantizer that tells of every second code under a number of its own, and of others at random."""
    import tempfile

    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file.name, np.arange(0, K, 2))
        return VectorQuantizer(K, D, 0.25, remap=file.name, **settings)


def spy_dac(module: nn.Module, seen: Seen, name: str = "vq") -> None:
    def tell(args, kwargs, output):
        z = flat(output[4], 1)
        indices = nearest(unit(z), unit(embedding(module)))
        assert torch.equal(indices, output[3].flatten())
        seen(name, Tokens(indices, z, embedding(module)[indices]))

    on_return(module, tell)


def spy_dac_layers(module: nn.Module, seen: Seen) -> None:
    for number, layer in enumerate(module.quantizers):
        spy_dac(layer, seen, f"vq.quantizers.{number}")


DAC = DacConfig(
    codebook_dim=D, codebook_size=K, hidden_size=8, n_codebooks=2, downsampling_ratios=[2], encoder_hidden_size=8
)


def vq_model() -> VQModel:
    return VQModel(
        block_out_channels=(4,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        latent_channels=D,
        num_vq_embeddings=K,
        norm_num_groups=2,
        sample_size=8,
    )


TABLES = {
    "diffusers": table(lambda: VectorQuantizer(K, D, 0.25)),
    "diffusers not legacy": table(lambda: VectorQuantizer(K, D, 0.25, legacy=False)),
    "diffusers sane shape": table(lambda: VectorQuantizer(K, D, 0.25, sane_index_shape=True)),
    "diffusers remap": table(lambda: remapping([])),
    "diffusers remap extra": table(lambda: remapping([], unknown_index="extra")),
    "diffusers square": table(lambda: VectorQuantizer(K, D, 0.25), (3, D, D, D)),
    "diffusers model": Stranger(
        vq_model,
        (2, 3, 8, 8),
        lambda module, seen: spy_table(module.quantize, seen, "vq.quantize"),
        lambda module: {"vq.quantize": embedding(module.quantize)},
        lambda model, x: model(x).sample,
    ),
    "chameleon": table(lambda: ChameleonVQVAEVectorQuantizer(ChameleonVQVAEConfig(num_embeddings=K, embed_dim=D))),
    "janus": table(lambda: JanusVQVAEVectorQuantizer(JanusVQVAEConfig(num_embeddings=K, embed_dim=D))),
    "glm": table(lambda: GlmImageVQVAEVectorQuantizer(GlmImageVQVAEConfig(num_embeddings=K, embed_dim=D)), scaled=True),
    "emu3": table(
        lambda: Emu3VQVAEVectorQuantizer(Emu3VQVAEConfig(codebook_size=K, embed_dim=D)), (2, 2, D, 3, 3), axis=2
    ),
    "dac": Stranger(lambda: DacVectorQuantize(DAC), (2, 8, 10), spy_dac, lambda module: {"vq": embedding(module)}),
    "residual dac": Stranger(
        lambda: DacResidualVectorQuantizer(DAC),
        (2, 8, 10),
        spy_dac_layers,
        lambda module: {f"vq.quantizers.{n}": embedding(layer) for n, layer in enumerate(module.quantizers)},
    ),
}
