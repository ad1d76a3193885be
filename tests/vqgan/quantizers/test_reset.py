import copy

import pytest
import ranks
import torch
import torch.multiprocessing
from torch.utils.checkpoint import checkpoint

from vqtool.vqgan.quantizers import QUANTIZERS, DeadCodeReset, StandardQuantizer
from vqtool.vqgan.quantizers.base import to_tokens

SOURCES = ["latents", "codes", "kmeans"]
K, D, ALIVE, EVERY, LR = 16, 2, 4, 5, 1e-3
CENTERS = torch.tensor([[5.0, 5.0], [5.0, -5.0], [-5.0, 5.0], [-5.0, -5.0]])


def collapsed(name):
    """A quantizer with one code at each of four clusters and twelve out of reach."""
    torch.manual_seed(0)
    quantizer = QUANTIZERS[name](K, D)
    codes = torch.cat([CENTERS + 0.05, 50.0 + torch.arange(K - ALIVE).unsqueeze(1).expand(-1, D)])
    quantizer.overwrite(torch.arange(K), codes)
    if name == "gumbel":  # logits that fall with the distance
        quantizer.proj.weight.data = 2 * codes.view(K, D, 1, 1)
        quantizer.proj.bias.data = -codes.square().sum(1)
    return quantizer


class Run:
    """Adam on the quantizer and on a shift of the latents, which come from four clusters."""

    def __init__(self, name, **settings):
        self.quantizer = collapsed(name)
        self.shift = torch.nn.Parameter(torch.zeros(1, D, 1, 1))
        self.optimizer = torch.optim.Adam([self.shift, *self.quantizer.parameters()], lr=LR)
        self.remedy = DeadCodeReset(self.quantizer, self.optimizer, **{"every": EVERY, **settings})
        self.generator = torch.Generator().manual_seed(7)

    def batch(self):
        cluster = torch.randint(4, (8, 8, 8), generator=self.generator)
        noise = 0.3 * torch.randn(8, D, 8, 8, generator=self.generator)
        return CENTERS[cluster].permute(0, 3, 1, 2) + noise

    def step(self):
        """One optimizer step up to the remedy: (K,) hits."""
        latents = self.batch() + self.shift
        output = self.quantizer(latents)
        self.optimizer.zero_grad()
        (output.loss + (output.quantized - latents.detach()).square().mean()).backward()
        self.optimizer.step()
        self.quantizer.end_step()
        return torch.bincount(output.indices.flatten(), minlength=K)

    def until_the_reset(self):
        for _ in range(EVERY - 1):
            self.step()
            assert self.remedy.step() is None
        return self.step()


def feed(quantizer, hits):
    """A training forward whose tokens lie on the codes, ``hits[k]`` of them on code k."""
    tokens = quantizer.codebook.detach().repeat_interleave(torch.tensor(hits), 0)
    return quantizer.train()(tokens.T.reshape(1, quantizer.dim, -1, 1))


def spread(codebook_size=8, **settings):
    torch.manual_seed(0)
    quantizer = StandardQuantizer(codebook_size, D)
    quantizer.overwrite(torch.arange(codebook_size), 3 * torch.randn(codebook_size, D))
    return quantizer, DeadCodeReset(quantizer, **{"every": 1, **settings})


# ---- what a reset does, for every quantizer and every source


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_revived_code_keeps_its_place_and_wins_hits(name, source):
    run = Run(name, source=source)
    assert run.until_the_reset()[ALIVE:].sum() == 0
    dead = run.remedy.step()
    assert dead.tolist() == list(range(ALIVE, K))
    placed = run.quantizer.codebook.detach().clone()
    assert torch.cdist(placed, CENTERS).min(1).values.max() < 2
    hits = run.step()
    moved = (run.quantizer.codebook.detach() - placed)[dead].abs().max()
    # Adam's first step after a long life is at most (1 - b1) / sqrt(1 - b2) = 3.2 rates; an average moves by a share.
    assert moved < (4 * LR if run.quantizer.codebook.requires_grad else 0.3)
    for _ in range(EVERY - 2):
        hits += run.step()
    assert (hits[dead] > 0).float().mean() > 0.7


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_revived_codes_differ_from_each_other_and_from_the_rest(name, source):
    run = Run(name, source=source)
    run.until_the_reset()
    run.remedy.step()
    distances = torch.cdist(run.quantizer.codebook.detach(), run.quantizer.codebook.detach())
    assert distances.fill_diagonal_(1).min() > 1e-5


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_reset_leaves_the_random_numbers_and_the_living_codes_alone(name, source):
    run = Run(name, source=source)
    run.until_the_reset()
    before, codes = torch.get_rng_state(), run.quantizer.codebook.detach()[:ALIVE].clone()
    assert run.remedy.step() is not None
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(run.quantizer.codebook[:ALIVE], codes)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_the_moments_of_revived_codes_are_cleared_and_no_others(name):
    run = Run(name)
    run.until_the_reset()
    for state in run.optimizer.state.values():
        state["exp_avg"].fill_(0.5)
        state["exp_avg_sq"].fill_(0.25)
    steps = [state["step"].item() for state in run.optimizer.state.values()]
    dead = run.remedy.step()
    for parameter in run.quantizer.parameters():
        state = run.optimizer.state[parameter]
        for key, value in (("exp_avg", 0.5), ("exp_avg_sq", 0.25)):
            expected = torch.full_like(parameter, value)
            expected[dead] = 0
            assert torch.equal(state[key], expected)
    assert (run.optimizer.state[run.shift]["exp_avg"] == 0.5).all()
    assert [state["step"].item() for state in run.optimizer.state.values()] == steps


def test_sums_and_counts_of_the_moving_averages_follow():
    run = Run("ema")
    run.until_the_reset()
    mean = run.quantizer.embedding.cluster_size.mean()
    dead = run.remedy.step()
    book = run.quantizer.embedding
    assert torch.equal(book.cluster_size[dead], mean.expand(len(dead)))
    torch.testing.assert_close(book.embed_avg[dead] / mean, book.weight[dead])


@pytest.mark.parametrize("name", QUANTIZERS)
def test_nothing_happens_where_nothing_is_dead(name):
    torch.manual_seed(0)
    quantizer = QUANTIZERS[name](K, D)
    quantizer.overwrite(torch.arange(K), 3 * torch.randn(K, D))
    if name == "gumbel":
        torch.nn.init.zeros_(quantizer.proj.weight)
        torch.nn.init.zeros_(quantizer.proj.bias)
    remedy = DeadCodeReset(quantizer, every=1)
    before = copy.deepcopy(quantizer.state_dict())
    feed(quantizer, [30] * K)
    assert remedy.step() is None
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())


# ---- which codes are dead


HITS = [40, 40, 40, 20, 3, 10, 0, 7]  # mean 20


@pytest.mark.parametrize("times", [1, 10])
@pytest.mark.parametrize(("threshold", "dead"), [(0.1, [6]), (0.2, [4, 6]), (0.5, [4, 6, 7]), (0.51, [4, 5, 6, 7])])
def test_dead_is_a_share_of_the_mean_hits_whatever_the_batch_size(times, threshold, dead):
    quantizer, remedy = spread(threshold=threshold)
    feed(quantizer, [times * hits for hits in HITS])
    assert remedy.step().tolist() == dead


def test_hits_add_up_over_micro_batches_and_steps_of_the_window():
    quantizer, remedy = spread(every=2)
    feed(quantizer, [9, 9, 9, 9, 0, 0, 0, 0])
    feed(quantizer, [0, 0, 0, 0, 9, 9, 0, 0])
    assert remedy.step() is None
    feed(quantizer, [0, 0, 0, 0, 0, 0, 9, 0])
    assert remedy.step().tolist() == [7]


def test_a_window_does_not_remember_the_one_before():
    quantizer, remedy = spread()
    feed(quantizer, [9] * 8)
    assert remedy.step() is None
    feed(quantizer, [9] * 7 + [0])
    assert remedy.step().tolist() == [7]


def test_evaluation_does_not_count():
    quantizer, remedy = spread()
    feed(quantizer, [9] * 7 + [0])
    quantizer.eval()(torch.ones(1, D, 5, 5) * quantizer.codebook[7].detach().view(1, D, 1, 1))
    assert remedy.step().tolist() == [7]


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_forward_that_is_recomputed_for_the_backward_pass_counts_once(name, reentrant):
    def train(run):
        torch.manual_seed(0)
        quantizer, shift = collapsed(name), torch.nn.Parameter(torch.zeros(1, D, 1, 1))
        remedy = DeadCodeReset(quantizer, every=3)
        for _ in range(2):
            for _ in range(2):  # micro-batches
                quantized, loss = run(lambda z: quantizer(z)[:3:2], torch.randn(2, D, 4, 4) + shift)
                (quantized.square().mean() + loss).backward()
            quantizer.end_step()
            remedy.step()
        return remedy.hits, quantizer.state_dict(), torch.get_rng_state()

    hits, state, random = train(lambda block, latents: block(latents))
    again, same, same_random = train(lambda block, latents: checkpoint(block, latents, use_reentrant=reentrant))
    assert hits.sum() == 2 * 2 * 2 * 4 * 4
    assert torch.equal(again, hits)
    assert all(torch.equal(same[key], value) for key, value in state.items())
    assert torch.equal(same_random, random)


# ---- where new codes come from


def revive(source, noise, seed=0):
    """The revived codes of a standard quantizer of which three codes are in use."""
    quantizer, remedy = spread(16, source=source, noise=noise, seed=seed)
    before, output = quantizer.codebook.detach().clone(), feed(quantizer, [90, 9, 1] + [0] * 13)
    dead = remedy.step()
    return before, to_tokens(output.quantized.detach()), quantizer.codebook.detach()[dead]


def test_without_noise_new_codes_are_latents_of_the_batch():
    _, tokens, revived = revive("latents", noise=0.0)
    assert torch.cdist(revived, tokens).min(1).values.max() < 1e-5


def test_without_noise_new_codes_are_codes_in_use_the_busiest_most_often():
    before, _, revived = revive("codes", noise=0.0)
    chosen = torch.cdist(revived, before).argmin(1)
    assert torch.equal(revived, before[chosen])
    assert chosen.max() <= 2
    assert (chosen == 0).sum() > len(chosen) / 2


def test_means_of_clusters_are_drawn_from_every_cluster():
    run = Run("standard", source="kmeans", noise=0.0)
    run.until_the_reset()
    dead = run.remedy.step()
    assert len(torch.cdist(run.quantizer.codebook.detach()[dead], CENTERS).argmin(1).unique()) == 4


@pytest.mark.parametrize("source", SOURCES)
def test_noise_parts_what_was_drawn_twice(source):
    assert len(revive(source, noise=0.0)[2].unique(dim=0)) < 6
    assert len(revive(source, noise=0.01)[2].unique(dim=0)) == 13


@pytest.mark.parametrize("source", SOURCES)
def test_the_seed_decides_the_draw(source):
    assert torch.equal(revive(source, 0.01, seed=1)[2], revive(source, 0.01, seed=1)[2])
    assert not torch.equal(revive(source, 0.01, seed=1)[2], revive(source, 0.01, seed=2)[2])


# ---- resuming, and several ranks


def test_a_run_resumed_in_mid_window_makes_the_same_reset():
    whole = Run("standard")
    for _ in range(3):
        whole.step()
        whole.remedy.step()
    resumed = Run("standard")
    resumed.quantizer.load_state_dict(copy.deepcopy(whole.quantizer.state_dict()))
    resumed.shift.data = whole.shift.data.clone()
    resumed.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
    resumed.remedy.load_state_dict(whole.remedy.state_dict())
    resumed.generator.set_state(whole.generator.get_state())
    codes = []
    for run in (whole, resumed):
        run.step()
        assert run.remedy.step() is None
        run.step()
        codes.append(run.remedy.step())
    assert torch.equal(*codes)
    assert torch.equal(whole.quantizer.codebook, resumed.quantizer.codebook)


def test_a_saved_state_does_not_change_with_the_run():
    quantizer, remedy = spread(every=3)
    feed(quantizer, [1] * 8)
    state = remedy.state_dict()
    feed(quantizer, [1] * 8)
    assert state["hits"].tolist() == [1] * 8


@pytest.mark.slow
def test_two_ranks_end_with_the_same_codes_and_resume_with_all_hits(tmp_path):
    torch.multiprocessing.spawn(ranks.train_with_resets, args=(tmp_path,), nprocs=ranks.RANKS)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(ranks.RANKS))
    for name in QUANTIZERS:
        one, two = first[name], second[name]
        assert one["resets"] == two["resets"] > 0
        for key, value in one["model"].items():
            assert torch.equal(value, two["model"][key]), f"{name}: {key}"
        assert not torch.equal(one["own_hits"], two["own_hits"])
        assert torch.equal(one["saved_hits"], one["own_hits"] + two["own_hits"])
        assert torch.equal(one["hits_after_resuming"] + two["hits_after_resuming"], one["saved_hits"])
