"""Speed of sampling with the static cache, beside a growing cache and none, and of training beside explicit attention.

    python benchmarks/sampling.py          # 256 codes, training
    python benchmarks/sampling.py --long   # and 1,024 codes: how each way of sampling and of training grows
    python benchmarks/sampling.py --quick  # 32 codes, 2 rounds, to see that it runs

How to read it. Candidates take turns within one process, so that a busy machine slows all of them alike; a ratio is the
median over rounds of (candidate / yardstick) in the same round. All sample greedily from the same weights (6 layers,
8 heads, width 256, 1,024 codes, 4 sequences), and their tokens are asserted to be identical. The claims come last,
each met or not met; the exit code is 0 either way.

Candidates:
    static      vqtool's complete: memory for all keys and values set aside once
    growing     the same model and loop with the keys and values of each step in a list that is concatenated before
                the next one, and per layer with the new ones, as taming-transformers' sample_with_past does
    none        the same model and loop without a cache: each step reads the whole sequence again. Of 1,024 codes only
                every 32nd step is taken, on the tokens of the static cache, and the sum is scaled
    linear      only the linear layers of each step, on one token per sequence: the floor of any cache
    fused       forward and backward of the same model with the attention that vqtool trains with
    explicit    the same with attention that writes all scores to memory, causal mask, softmax and product
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vqtool.vqgan.sampling.decoding import complete
from vqtool.vqgan.sampling.settings import DrawingSettings
from vqtool.vqgan.transformer.gpt import GPT, SIZES

CODES, BATCH = 1024, 4
TARGETS = {"none": 0.07, "growing": 0.65}

Candidates = dict[str, Callable[[], Tensor]]


class GrowingCache:
    """Keys and values as they come: each step's in a list, concatenated before the next step."""

    def __init__(self) -> None:
        self.steps: list[Tensor] = []
        self.past: Tensor | None = None
        self.new: list[Tensor] = []
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if layer == 0:
            if self.new:
                self.steps.append(torch.stack(self.new))
                self.past = torch.cat(self.steps, dim=-2)
            self.new = []
        self.new.append(torch.stack((keys, values)))
        if self.past is None:
            return keys, values
        return torch.cat((self.past[layer, 0], keys), dim=-2), torch.cat((self.past[layer, 1], values), dim=-2)


def make_gpt(steps: int, device: str) -> GPT:
    """Weights of a size with which greedy tokens do not fall into a rut."""
    torch.manual_seed(0)
    gpt = GPT(CODES, steps, SIZES["small"]).to(device).eval()
    with torch.no_grad():
        for name, parameter in gpt.named_parameters():
            if "ln" not in name and not name.endswith("bias"):
                parameter.mul_(5)
        gpt.pos_emb.normal_(std=0.1)
    return gpt


def with_static_cache(gpt: GPT, prefix: Tensor, steps: int) -> Tensor:
    return complete(gpt, prefix, prefix[:, :0], steps, DrawingSettings(greedy=True))


@torch.no_grad()
def with_growing_cache(gpt: GPT, prefix: Tensor, steps: int) -> Tensor:
    cache, codes = GrowingCache(), [prefix]
    for _ in range(steps):
        codes.append(gpt.next_logits(codes[-1], cache).argmax(-1, keepdim=True))
    return torch.cat(codes[1:], 1)


@torch.no_grad()
def without_cache(gpt: GPT, prefix: Tensor, steps: int) -> Tensor:
    codes = prefix
    for _ in range(steps):
        codes = torch.cat((codes, gpt.next_logits(codes).argmax(-1, keepdim=True)), 1)
    return codes[:, prefix.shape[1] :]


@torch.no_grad()
def every_step_without_cache(gpt: GPT, tokens: Tensor, stride: int) -> Tensor:
    """What every ``stride``-th step without a cache would sample after the prefix of one in ``tokens``."""
    lengths = range(stride, tokens.shape[1], stride)
    return torch.stack([gpt.next_logits(tokens[:, :length]).argmax(-1) for length in lengths], 1)


@torch.no_grad()
def linear_layers(gpt: GPT, steps: int) -> Tensor:
    layers = [module for module in gpt.modules() if isinstance(module, nn.Linear)]
    inputs = {n: torch.randn(BATCH, 1, n, device=gpt.pos_emb.device) for n in {layer.in_features for layer in layers}}
    out = torch.empty(0)
    for _ in range(steps):
        for layer in layers:
            out = layer(inputs[layer.in_features])
    return out


def explicit_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0, is_causal: bool = False
) -> Tensor:
    """Softmax attention with all scores in memory."""
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    return F.dropout(scores.softmax(-1), dropout_p) @ v


def training_step(gpt: GPT, tokens: Tensor) -> Tensor:
    gpt.zero_grad()
    loss = F.cross_entropy(gpt(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    return loss.detach()


def explicit_training_step(gpt: GPT, tokens: Tensor) -> Tensor:
    with patch.object(F, "scaled_dot_product_attention", explicit_attention):
        return training_step(gpt, tokens)


def seconds_of(function: Callable[[], Tensor]) -> tuple[float, Tensor]:
    before = time.perf_counter()
    result = function()
    if result.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - before, result


def in_turn(candidates: Candidates, rounds: int) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    """Seconds of each candidate in each round, and the results of the last round."""
    table, results = [], {}
    for _ in range(rounds):
        table.append({})
        for name, function in candidates.items():
            table[-1][name], results[name] = seconds_of(function)
    return table, results


def ratio(table: list[dict[str, float]], name: str, yardstick: str) -> float:
    return statistics.median(row[name] / row[yardstick] for row in table)


def seconds(table: list[dict[str, float]], name: str) -> float:
    return statistics.median(row[name] for row in table)


def summary(table: list[dict[str, float]], candidate: str) -> dict[str, float]:
    """Seconds of all by name, and the ratios of ``candidate`` to each under ``candidate/NAME``."""
    return {name: seconds(table, name) for name in table[0]} | {
        f"{candidate}/{name}": ratio(table, candidate, name) for name in table[0]
    }


def measure_sampling(steps: int, stride: int, args: argparse.Namespace) -> dict[str, float]:
    """Print one table; see ``summary``."""
    gpt = make_gpt(steps, args.device)
    prefix = torch.arange(BATCH, device=args.device)[:, None]
    for warm_up in (with_growing_cache, without_cache):
        warm_up(gpt, prefix, 8)
    expected = with_static_cache(gpt, prefix, steps)
    tokens = torch.cat((prefix, expected), 1)
    none = without_cache if stride == 1 else lambda *_: every_step_without_cache(gpt, tokens, stride)
    candidates: Candidates = {
        "static": lambda: with_static_cache(gpt, prefix, steps),
        "growing": lambda: with_growing_cache(gpt, prefix, steps),
        "none": lambda: none(gpt, prefix, steps),
        "linear": lambda: linear_layers(gpt, steps),
    }
    table, results = in_turn(candidates, args.rounds)
    assert torch.equal(results["growing"], expected), "the growing cache samples other tokens"
    strided = expected if stride == 1 else tokens[:, stride::stride]
    assert torch.equal(results["none"], strided[:, : results["none"].shape[1]]), "no cache samples other tokens"
    for row in table:
        row["none"] *= expected.shape[1] / results["none"].shape[1]
    print(f"\n{steps} codes, {BATCH} sequences, {len(expected.unique())} different codes among them")
    found = summary(table, "static")
    for name in candidates:
        print(f"{name:>8} {found[name]:>8.2f} s   static / {name}: {found[f'static/{name}']:.3f}")
    return found


def measure_training(length: int, args: argparse.Namespace) -> dict[str, float]:
    """Print tokens per second; see ``summary``."""
    gpt = make_gpt(length, args.device).train()
    tokens = torch.randint(CODES, (BATCH, length + 1), device=args.device)
    candidates: Candidates = {
        "fused": lambda: training_step(gpt, tokens),
        "explicit": lambda: explicit_training_step(gpt, tokens),
    }
    in_turn(candidates, 1)
    table, results = in_turn(candidates, args.rounds)
    assert torch.allclose(results["fused"], results["explicit"], rtol=1e-4), "the losses differ"
    found = summary(table, "fused")
    print(f"\nForward + backward, {BATCH} sequences of {length} codes")
    for name in candidates:
        speed = BATCH * length / found[name]
        print(f"{name:>8} {found[name]:>8.3f} s {speed:>9,.0f} tokens/s   fused / {name}: {found[f'fused/{name}']:.3f}")
    return found


def print_claim(claim: str, met: bool, numbers: str) -> None:
    print(f"{'met    ' if met else 'NOT met'}  {claim}: {numbers}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="32 codes, 2 rounds")
    parser.add_argument("--long", action="store_true", help="1,024 codes too")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    parser.add_argument("--threads", type=int, default=2, help="threads of torch (default 2)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    steps = 32 if args.quick else 256
    args.rounds = 2 if args.quick else args.rounds
    print(f"torch {torch.__version__}, {args.device}, {args.threads} threads, load average {os.getloadavg()[0]:.1f}")
    found = measure_sampling(steps, 1, args)
    found |= measure_training(steps, args)
    longer = measure_sampling(4 * steps, 32, args) | measure_training(4 * steps, args) if args.long else {}
    print("\nClaims" + (" (of 256 codes; these are fewer)" if args.quick else ""))
    for name, target in TARGETS.items():
        share = found[f"static/{name}"]
        print_claim(f"static takes at most {target} of {name}", share <= target, f"{share:.3f}")
    speeds = ", ".join(f"{name} {BATCH * steps / found[name]:,.0f} tokens/s" for name in ("fused", "explicit"))
    fused = found["fused/explicit"]
    print_claim("fused attention trains no slower than explicit", fused <= 1, f"{fused:.2f} of its time; {speeds}")
    print(f"linear layers alone: {1 / found['static/linear']:.2f} of static")
    for name in ("static", "growing", "none", "fused", "explicit") if longer else ():
        print(f"growth of {name} from {steps} to {4 * steps} codes: {longer[name] / found[name]:.1f} times")


if __name__ == "__main__":
    main()
