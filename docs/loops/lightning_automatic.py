"""Lightning's trainer, which steps the optimizer itself: ``python docs/loops/lightning_automatic.py runs/mine``.

``pytorch_lightning`` in place of ``lightning.pytorch`` works as well.
"""

import sys

import lightning.pytorch as lightning
import torch
import torch.nn.functional as F
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from vqtool.diagnostics import LightningMonitor


class Autoencoder(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(12, 8), nn.Linear(8, 12)
        self.quantize = VectorQuantize(dim=8, codebook_size=64)

    def training_step(self, x, batch_idx):
        quantized, _, commitment = self.quantize(self.encoder(x))
        return F.mse_loss(self.decoder(quantized), x) + commitment.sum()

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main(folder, checkpoint=None):
    batches = torch.utils.data.DataLoader(torch.randn(50 * 32, 16, 12), batch_size=32)
    callbacks = [LightningMonitor(folder, every=10)]
    trainer = lightning.Trainer(max_epochs=1, callbacks=callbacks, default_root_dir=folder, logger=False)
    trainer.fit(Autoencoder(), batches, ckpt_path=checkpoint)  # with a checkpoint the trace goes on as well


if __name__ == "__main__":
    main(*sys.argv[1:])
