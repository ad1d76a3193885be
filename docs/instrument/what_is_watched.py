"""What of a model would be watched, and what not: ``python docs/instrument/what_is_watched.py``."""

import torch
from torch import nn
from vector_quantize_pytorch import FSQ, ResidualVQ

from vqtool.diagnostics import find_codebooks


class ClusterQuantizer(nn.Module):
    def __init__(self):
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(64, 8))

    def forward(self, z):
        return self.codebook[(z @ self.codebook.T).argmax(-1)]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.speech = ResidualVQ(dim=8, codebook_size=1024, num_quantizers=2)
        self.image = FSQ(levels=[8, 8, 8, 5, 5, 5], dim=8)
        self.text = ClusterQuantizer()


def main(folder=None):
    print(find_codebooks(Model()))


if __name__ == "__main__":
    main()
