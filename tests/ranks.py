"""Work for several processes: at the top level of a module that every one of them can import."""

import json
from pathlib import Path

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch.nn.parallel import DistributedDataParallel

from vqtool.diagnostics.run import load_config
from vqtool.vqgan.autoencoder.evaluation import evaluate_split
from vqtool.vqgan.autoencoder.learner import AutoencoderLearner
from vqtool.vqgan.autoencoder.model import build_model
from vqtool.vqgan.autoencoder.settings import build_autoencoder_config
from vqtool.vqgan.data import Batches
from vqtool.vqgan.data.opening import open_images
from vqtool.vqgan.quantizers import QUANTIZERS, DeadCodeReset

RANKS, K, D = 2, 16, 2


def train_with_resets(rank: int, folder: Path) -> None:
    """Train each quantizer with resets on latents of this rank's own; leave codes and states in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=RANKS)
    results = {name: _train(name, rank) for name in QUANTIZERS}
    torch.save(results, folder / f"rank{rank}.pt")
    dist.barrier()  # a rank that leaves while the group's threads are at work is aborted
    dist.destroy_process_group()


def start_from_kmeans(rank: int, folder: Path) -> None:
    """Start a codebook from k-means on this rank's own share of the images; leave the codes in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=RANKS)
    config = build_autoencoder_config(load_config(folder / "config.yaml"))
    learner = AutoencoderLearner(Fabric(accelerator="cpu", devices=1), config)
    images = open_images(config.data)["train"]
    divided = {"world_size": RANKS, "rank": rank, "accumulate": config.train.accumulate}
    learner.start_codebook(Batches(images, config.train.batch_size, 0, flip=False, **divided))
    torch.save(learner.model.quantize.codebook.detach(), folder / f"rank{rank}.pt")
    dist.barrier()  # a rank that leaves while the group's threads are at work is aborted
    dist.destroy_process_group()


def evaluate_test_split(rank: int, folder: Path) -> None:
    """Evaluate a model of seed 0 on this rank's own share of the test split; leave the figures in ``folder``."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=RANKS)
    config = build_autoencoder_config(load_config(folder / "config.yaml"))
    torch.manual_seed(0)
    figures, _ = evaluate_split(build_model(config), open_images(config.data)["test"], config, "test")
    (folder / f"rank{rank}.json").write_text(json.dumps(figures))
    dist.barrier()  # a rank that leaves while the group's threads are at work is aborted
    dist.destroy_process_group()


def _train(name: str, rank: int) -> dict:
    torch.manual_seed(0)
    quantizer = QUANTIZERS[name](K, D)
    model = torch.nn.Sequential(torch.nn.Conv2d(D, D, 1), quantizer)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    # So high a threshold that a draw from the softmax leaves dead codes too.
    remedy = DeadCodeReset(quantizer, optimizer, every=3, threshold=0.8)
    torch.manual_seed(100 + rank)
    resets = 0
    for _ in range(8):
        latents = torch.randn(4, D, 4, 4) + 3 * rank
        output = wrapped(latents)
        optimizer.zero_grad()
        (output.loss + (output.quantized - latents).square().mean()).backward()
        optimizer.step()
        quantizer.end_step()
        codes = remedy.step()
        resets += 0 if codes is None else len(codes)
    state = remedy.state_dict()
    own = remedy.hits.clone()
    remedy.load_state_dict(state)
    return {
        "model": model.state_dict(),
        "resets": resets,
        "own_hits": own,
        "saved_hits": state["hits"],
        "hits_after_resuming": remedy.hits,
    }
