"""Codebooks of audio models: the encodec package, transformers' codecs without a forward, and gumbel draws."""

import torch
from encodec.quantization import ResidualVectorQuantizer
from encodec.quantization.core_vq import VectorQuantization
from torch import Tensor, nn
from transformers.models.encodec.configuration_encodec import EncodecConfig
from transformers.models.encodec.modeling_encodec import EncodecResidualVectorQuantizer
from transformers.models.higgs_audio_v2_tokenizer.configuration_higgs_audio_v2_tokenizer import (
    HiggsAudioV2TokenizerConfig,
)
from transformers.models.higgs_audio_v2_tokenizer.modeling_higgs_audio_v2_tokenizer import (
    HiggsAudioV2TokenizerVectorQuantization,
)
from transformers.models.mimi.configuration_mimi import MimiConfig
from transformers.models.mimi.modeling_mimi import MimiResidualVectorQuantizer, MimiSplitResidualVectorQuantizer
from transformers.models.unispeech.configuration_unispeech import UniSpeechConfig
from transformers.models.unispeech.modeling_unispeech import UniSpeechGumbelVectorQuantizer
from transformers.models.unispeech_sat.configuration_unispeech_sat import UniSpeechSatConfig
from transformers.models.unispeech_sat.modeling_unispeech_sat import UniSpeechSatGumbelVectorQuantizer
from transformers.models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2GumbelVectorQuantizer
from transformers.models.wav2vec2_conformer.configuration_wav2vec2_conformer import Wav2Vec2ConformerConfig
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerGumbelVectorQuantizer
from transformers.models.wavlm.configuration_wavlm import WavLMConfig
from transformers.models.wavlm.modeling_wavlm import WavLMGumbelVectorQuantizer
from transformers.models.xcodec.configuration_xcodec import XcodecConfig
from transformers.models.xcodec.modeling_xcodec import XcodecVectorQuantization

from strangers.base import Seen, Stranger, Tokens, flat, on_return

K, D = 16, 4


def table_of(codebook: nn.Module) -> Tensor:
    return codebook.embed_sum / codebook.cluster_usage[:, None] if hasattr(codebook, "embed_sum") else codebook.embed


def spy_encodec(module: nn.Module, seen: Seen, name: str = "vq") -> None:
    def tell(args, kwargs, output):
        seen(name, Tokens(output[1].flatten(), flat(args[0]), flat(output[0]).clone()))

    on_return(module._codebook, tell)


def spy_encodec_layers(module: nn.Module, seen: Seen) -> None:
    for number, layer in enumerate(module.vq.layers):
        spy_encodec(layer, seen, f"vq.vq.layers.{number}")


def spy_encoded(module: nn.Module, seen: Seen) -> None:
    """By hand: residuals and their nearest codes, for what an encode of all layers was given and returned."""
    encode = module.encode

    def spied(x, *args, **kwargs):
        indices = encode(x, *args, **kwargs)
        layers = module.vq.layers if hasattr(module, "vq") else module.layers
        prefix = "vq.vq.layers" if hasattr(module, "vq") else "vq.layers"
        tell_residuals(layers, flat(x, 1), indices, seen, prefix)
        return indices

    module.encode = spied


def tell_residuals(layers, rest: Tensor, indices: Tensor, seen: Seen, prefix: str) -> None:
    for number, (layer, mine) in enumerate(zip(layers, indices, strict=False)):
        codebook = layer._codebook if hasattr(layer, "_codebook") else layer.codebook
        codes = table_of(codebook)[mine.flatten()]
        seen(f"{prefix}.{number}", Tokens(mine.flatten(), rest, codes))
        rest = rest - codes


def encodec_layer_tables(module: nn.Module) -> dict[str, Tensor]:
    return {f"vq.vq.layers.{number}": layer._codebook.embed for number, layer in enumerate(module.vq.layers)}


def layer_tables(module: nn.Module, prefix: str = "vq") -> dict[str, Tensor]:
    return {f"{prefix}.layers.{number}": table_of(layer.codebook) for number, layer in enumerate(module.layers)}


def filled(module: nn.Module) -> nn.Module:
    """With codes, as these models have only from their weights."""
    for name, buffer in module.named_buffers():
        if name.rpartition(".")[2] in ("embed", "embed_sum"):
            buffer.normal_()
        if name.endswith("cluster_usage"):
            buffer.uniform_(0.5, 2)
    return module


ENCODEC = EncodecConfig(codebook_size=K, codebook_dim=D, hidden_size=D, target_bandwidths=[24.0], sampling_rate=24_000)
MIMI = MimiConfig(
    codebook_size=K,
    codebook_dim=D,
    hidden_size=D,
    vector_quantization_hidden_dimension=D,
    num_quantizers=3,
    num_semantic_quantizers=1,
)


def spy_split(module: nn.Module, seen: Seen) -> None:
    """By hand: both halves quantize the embeddings."""
    encode = module.encode

    def spied(x, *args, **kwargs):
        indices = encode(x, *args, **kwargs)
        first = module.semantic_residual_vector_quantizer
        tell_residuals(first.layers, flat(x, 1), indices[:1], seen, "vq.semantic_residual_vector_quantizer.layers")
        second = module.acoustic_residual_vector_quantizer
        tell_residuals(second.layers, flat(x, 1), indices[1:], seen, "vq.acoustic_residual_vector_quantizer.layers")
        return indices

    module.encode = spied


def split_tables(module: nn.Module) -> dict[str, Tensor]:
    halves = ("semantic_residual_vector_quantizer", "acoustic_residual_vector_quantizer")
    return {name: each for half in halves for name, each in layer_tables(getattr(module, half), f"vq.{half}").items()}


def spy_one(module: nn.Module, seen: Seen) -> None:
    encode, entered = module.encode, []
    if hasattr(module, "project_in"):
        on_return(module.project_in, lambda args, kwargs, output: entered.append(output))

    def spied(x):
        indices = encode(x)
        z = flat(entered.pop()) if entered else flat(x, 1)
        seen("vq", Tokens(indices.flatten(), z, table_of(module.codebook)[indices.flatten()]))
        return indices

    module.encode = spied


def codec(build, shape=(2, D, 10), spy=spy_encoded, tables=layer_tables) -> Stranger:
    return Stranger(lambda: filled(build()), shape, spy, tables, lambda vq, x: vq.encode(x))


def spy_draws(module: nn.Module, seen: Seen) -> None:
    """By hand: the code that each group of the output is, and nothing it was compared with."""

    def tell(args, kwargs, output):
        for group, drawn in enumerate(flat(output[0]).chunk(module.num_groups, 1)):
            codes = module.codevectors.detach()[0].chunk(module.num_groups)[group]
            indices = torch.tensor([[torch.allclose(each, code) for code in codes].index(True) for each in drawn])
            seen(f"vq.group{group}", Tokens(indices, torch.full_like(drawn, torch.nan), drawn))

    on_return(module, tell)


def draws(kind, config, **more) -> Stranger:
    def build():
        module = kind(
            config(codevector_dim=8, num_codevector_groups=2, num_codevectors_per_group=K, conv_dim=(6,) * 7, **more)
        )
        nn.init.normal_(module.codevectors)
        return module

    def tables(module):
        return {f"vq.group{group}": each for group, each in enumerate(module.codevectors.detach()[0].chunk(2))}

    return Stranger(build, (2, 10, 6), spy_draws, tables)


def encodec(**settings) -> Stranger:
    return Stranger(
        lambda: VectorQuantization(**{"dim": D, "codebook_size": K, "kmeans_init": False, **settings}),
        (2, D, 10),
        spy_encodec,
        lambda module: {"vq": module._codebook.embed},
    )


AUDIO = {
    "encodec": encodec(),
    "encodec kmeans": encodec(kmeans_init=True),
    "encodec projected": encodec(codebook_dim=3),
    "encodec residual": Stranger(
        lambda: ResidualVectorQuantizer(dimension=D, n_q=2, bins=K),
        (2, D, 30),
        spy_encodec_layers,
        encodec_layer_tables,
        lambda vq, x: vq.vq(x),
    ),
    "encodec encode": Stranger(
        lambda: ResidualVectorQuantizer(dimension=D, n_q=2, bins=K, kmeans_init=False).vq,
        (2, D, 30),
        spy_encoded,
        lambda module: {f"vq.layers.{n}": layer._codebook.embed for n, layer in enumerate(module.layers)},
        lambda vq, x: vq.encode(x),
    ),
    "transformers encodec": codec(lambda: EncodecResidualVectorQuantizer(ENCODEC)),
    "transformers xcodec": codec(
        lambda: XcodecVectorQuantization(XcodecConfig(codebook_size=K, codebook_dim=D)),
        spy=spy_one,
        tables=lambda module: {"vq": module.codebook.embed},
    ),
    "transformers higgs": codec(
        lambda: HiggsAudioV2TokenizerVectorQuantization(HiggsAudioV2TokenizerConfig(codebook_size=K, codebook_dim=D)),
        shape=(2, 1024, 10),
        spy=spy_one,
        tables=lambda module: {"vq": module.codebook.embed},
    ),
    "transformers mimi": codec(lambda: MimiResidualVectorQuantizer(MIMI)),
    "transformers mimi split": codec(
        lambda: MimiSplitResidualVectorQuantizer(MIMI), spy=spy_split, tables=split_tables
    ),
    "wav2vec2": draws(Wav2Vec2GumbelVectorQuantizer, Wav2Vec2Config),
    "wav2vec2 conformer": draws(Wav2Vec2ConformerGumbelVectorQuantizer, Wav2Vec2ConformerConfig),
    "wavlm": draws(WavLMGumbelVectorQuantizer, WavLMConfig),
    "unispeech": draws(UniSpeechGumbelVectorQuantizer, UniSpeechConfig),
    "unispeech sat": draws(UniSpeechSatGumbelVectorQuantizer, UniSpeechSatConfig, hidden_size=6),
}
