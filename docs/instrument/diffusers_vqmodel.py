"""diffusers' VQModel: ``python docs/instrument/diffusers_vqmodel.py runs/vqmodel``."""

import sys

import torch
import torch.nn.functional as F
from diffusers import VQModel

from vqtool.diagnostics import CodebookMonitor, CodebookTrace, TraceSink, find_codebooks, read_table, stats


def batch():
    """Eight images of random colours, four by four of them."""
    return F.interpolate(torch.rand(8, 3, 4, 4), scale_factor=4, mode="bilinear") * 2 - 1


def main(folder):
    torch.manual_seed(0)
    model = VQModel(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        num_vq_embeddings=64,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    print(find_codebooks(model))

    monitor = CodebookMonitor(model, optimizer, [TraceSink(folder)], every=20)
    for _ in range(60):
        images = batch()
        output = model(images)
        loss = F.mse_loss(output.sample, images) + output.commit_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    monitor.close()

    trace = CodebookTrace.load(f"{folder}/trace/quantize")
    used, perplexity = stats.codes_used(trace.hits[-1]), stats.perplexity(trace.hits[-1])
    ceiling = stats.expected_codes_used(64, trace.hits[-1].sum())
    print(f"steps 41 to 60: {used} codes used, ceiling {ceiling:.0f}, perplexity {perplexity:.0f}")
    show(folder, "boundary", ["estimator", "gain", "commitment"])
    show(folder, "movement", ["attraction", "in_optimizer", "lr", "grad_share"])
    show(folder, "geometry", ["scale", "spread_ratio", "offset", "effective_rank", "dead_reach"])


def show(folder, table, columns):
    """The first and the last row of a table."""
    rows = read_table(f"{folder}/{table}/quantize", columns).iloc[[0, -1]]
    print(f"{table}:", rows.round(3).to_string(index=False), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
