"""The Trainer of transformers: ``python docs/loops/transformers_trainer.py runs/mine``."""

import sys

import torch
import torch.nn.functional as F
from torch import nn
from transformers import Trainer, TrainingArguments
from vector_quantize_pytorch import VectorQuantize

from vqtool.diagnostics import TransformersMonitor


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(12, 8), nn.Linear(8, 12)
        self.quantize = VectorQuantize(dim=8, codebook_size=64)

    def forward(self, x):
        quantized, _, commitment = self.quantize(self.encoder(x))
        return {"loss": F.mse_loss(self.decoder(quantized), x) + commitment.sum()}


def main(folder, resume=False):
    settings = {"per_device_train_batch_size": 32, "num_train_epochs": 1, "save_steps": 20, "report_to": "none"}
    trainer = Trainer(
        Autoencoder(),
        TrainingArguments(f"{folder}/checkpoints", **settings),
        train_dataset=[{"x": x} for x in torch.randn(50 * 32, 16, 12)],
        callbacks=[TransformersMonitor(folder, every=10)],
    )
    trainer.train(resume_from_checkpoint=resume)  # where it resumes the trace goes on as well


if __name__ == "__main__":
    main(sys.argv[1], resume="--resume" in sys.argv)
