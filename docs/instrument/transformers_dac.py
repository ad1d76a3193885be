"""The codebooks of transformers' DAC over a data set: ``python docs/instrument/transformers_dac.py runs/measured``."""

import sys

import torch
from transformers import DacConfig, DacModel

from vqtool.diagnostics import TraceSink, find_codebooks, measure_codebooks


def main(folder):
    torch.manual_seed(0)
    config = DacConfig(  # tiny, with random weights
        encoder_hidden_size=8,
        decoder_hidden_size=32,
        downsampling_ratios=[2, 4],
        upsampling_ratios=[4, 2],
        n_codebooks=3,
        codebook_size=256,
        codebook_dim=4,
    )
    model = DacModel(config)
    print(find_codebooks(model))

    loader = [torch.randn(4, 1, 1024) for _ in range(4)]  # 4 clips of 1,024 samples, 128 tokens each
    measured = measure_codebooks(model, loader, [TraceSink(folder)], forward=model.encode)
    for measurement in measured.values():
        print(measurement)


if __name__ == "__main__":
    main(sys.argv[1])
