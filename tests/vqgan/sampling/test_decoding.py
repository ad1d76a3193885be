import itertools
import math
from functools import partial

import pytest
import torch
from scipy.stats import chisquare
from torch.utils._python_dispatch import TorchDispatchMode

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.sampling.decoding import (
    complete,
    draw,
    sliding_window_sample,
    top_k_filter,
    top_p_filter,
)
from vqtool.vqgan.sampling.settings import DrawingSettings
from vqtool.vqgan.transformer.gpt import GPT, Size

VOCABULARY = 23
GREEDY = DrawingSettings(greedy=True)
LOGITS = [1.0, -0.5, 2.0, 0.0, 0.7, -2.0, 1.5, 0.3]


def make_gpt(block_size=40, **settings):
    """Weights far from their initial values, so that every token and position that is seen matters."""
    gpt = GPT(VOCABULARY, block_size, Size(2, 4, 32), **settings).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in gpt.named_parameters():
            if "ln" not in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return gpt


def constant_gpt(logits):
    """A transformer that answers the same ``logits`` whatever it reads."""
    gpt = GPT(len(logits), 16, Size(1, 1, 4))
    with torch.no_grad():
        gpt.ln_f.weight.zero_()
        gpt.ln_f.bias.copy_(torch.tensor([1.0, 0, 0, 0]))
        gpt.head.weight[:, 0] = torch.tensor(logits)
    return gpt


def tokens(*shape, seed=1, below=VOCABULARY):
    return torch.randint(below, shape, generator=torch.Generator().manual_seed(seed))


def sample(gpt, prefix, steps, *drawing, **how):
    """A completion of nothing."""
    return complete(gpt, prefix, prefix[:, :0], steps, *drawing, **how)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# ---- slow twins: the definitions, one row at a time


def slow_top_k(row, k):
    least = sorted(row, reverse=True)[min(k, len(row)) - 1]
    return [logit if logit >= least else -math.inf for logit in row]


def slow_nucleus(row, p):
    """The first of all token sets by size, then by probability, whose mass reaches p."""
    weights = [math.exp(logit) for logit in row]
    shares = [weight / sum(weights) for weight in weights]
    for size in range(1, len(row) + 1):
        best = max(itertools.combinations(range(len(row)), size), key=lambda chosen: sum(shares[i] for i in chosen))
        if sum(shares[i] for i in best) >= p - 1e-9:
            return [logit if i in best else -math.inf for i, logit in enumerate(row)]
    raise AssertionError("the whole vocabulary has mass 1")


def greedily(logits):
    return logits.argmax(-1)


def slow_complete(gpt, prefix, given, total, guidance=1.0, unconditional=None, allowed=None, choose=greedily):
    """Without a cache: everything is read again for every code, and the logits of what is not allowed are masked."""
    codes = given
    for _ in range(total - given.shape[1]):
        logits = gpt(torch.cat((prefix, codes), 1))[:, -1]
        if guidance != 1:
            blank = gpt(torch.cat((unconditional, codes), 1))[:, -1]
            logits = blank + guidance * (logits - blank)
        if allowed is not None:
            for token in set(range(VOCABULARY)) - set(allowed.tolist()):
                logits[:, token] = -math.inf
        codes = torch.cat((codes, choose(logits)[:, None]), 1)
    return codes


def slow_draw(allowed, generator):
    """The same clocks as a draw from the allowed tokens alone; those of the others never ring."""

    def choose(logits):
        clocks = torch.full_like(logits, math.inf)
        for column, row in enumerate(torch.empty(len(logits), len(allowed)).exponential_(generator=generator).T):
            clocks[:, allowed[column]] = row
        return (logits.softmax(-1) / clocks).argmax(-1)

    return choose


# ---- filters


@pytest.mark.parametrize("k", [1, 2, 5, 7, 8, 100])
def test_top_k_keeps_the_k_largest(k):
    rows = torch.randn(5, 8, generator=seeded())
    expected = [slow_top_k(row, k) for row in rows.tolist()]
    assert top_k_filter(rows, k).tolist() == expected
    assert top_k_filter(rows, k).isfinite().sum(1).tolist() == [min(k, 8)] * 5


def test_top_k_keeps_what_equals_the_kth():
    assert top_k_filter(torch.tensor([[3.0, 1, 2, 2, 0]]), 2).isfinite().tolist() == [[True, False, True, True, False]]


@pytest.mark.parametrize("p", [1e-6, 0.2, 0.5, 0.8, 0.95, 1.0])
def test_top_p_keeps_the_smallest_set_that_reaches_p(p):
    rows = torch.randn(5, 8, generator=seeded()) * 2
    expected = [slow_nucleus(row, p) for row in rows.tolist()]
    assert top_p_filter(rows, p).tolist() == expected


def test_top_p_stops_exactly_where_p_is_reached():
    halves = torch.tensor([[0.25, 0.5, 0.25]]).log()
    assert top_p_filter(halves, 0.5).isfinite().tolist() == [[False, True, False]]
    assert top_p_filter(halves, 0.51).isfinite().sum() == 2
    assert top_p_filter(halves, 0.75).isfinite().sum() == 2


def test_top_p_is_never_empty():
    certain = torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert (top_p_filter(certain, 1e-9).isfinite().sum(1) == 1).all()


def test_filters_leave_their_argument_alone():
    rows = torch.randn(2, 8, generator=seeded())
    before = rows.clone()
    top_k_filter(rows, 2), top_p_filter(rows, 0.3)
    assert torch.equal(rows, before)


# ---- distributions


def expected_distribution(temperature=1.0, top_k=None, top_p=None):
    row = [logit / temperature for logit in LOGITS]
    row = row if top_k is None else slow_top_k(row, top_k)
    row = row if top_p is None else slow_nucleus(row, top_p)
    weights = [math.exp(logit) for logit in row]
    return torch.tensor([weight / sum(weights) for weight in weights], dtype=torch.float64)


@pytest.mark.parametrize(
    "drawing",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 3.0},
        {"top_k": 3},
        {"top_p": 0.8},
        {"temperature": 2.0, "top_k": 6, "top_p": 0.7},
    ],
    ids=str,
)
def test_sampled_frequencies_are_the_softmax(drawing):
    prefix = torch.zeros(4000, 1, dtype=torch.int64)
    codes = sample(constant_gpt(LOGITS), prefix, 8, DrawingSettings(**drawing), generator=seeded())
    counts = codes.flatten().bincount(minlength=len(LOGITS)).double()
    expected = expected_distribution(**drawing)
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    assert chisquare(counts[possible], expected[possible] * counts.sum()).pvalue > 1e-3


def test_codes_are_drawn_independently():
    codes = sample(constant_gpt([0.0, 0.0]), torch.zeros(4000, 1, dtype=torch.int64), 2, generator=seeded())
    pairs = (2 * codes[:, 0] + codes[:, 1]).bincount(minlength=4)
    assert chisquare(pairs).pvalue > 1e-3


def test_greedy_is_the_argmax_whatever_the_other_settings():
    logits = torch.randn(6, 8, generator=seeded())
    drawing = DrawingSettings(greedy=True, temperature=5.0, top_k=3, top_p=0.5)
    assert torch.equal(draw(logits, drawing), logits.argmax(1))


def test_a_nearly_cold_draw_is_the_argmax():
    logits = torch.randn(6, 8, generator=seeded())
    assert torch.equal(draw(logits, DrawingSettings(temperature=1e-4), seeded()), logits.argmax(1))


@pytest.mark.parametrize("drawing", [{"top_k": 1}, {"top_p": 1e-6}], ids=str)
def test_a_filter_that_leaves_one_token_is_greedy(drawing):
    gpt, prefix = make_gpt(), tokens(3, 2)
    codes = sample(gpt, prefix, 12, DrawingSettings(**drawing), generator=seeded())
    assert torch.equal(codes, sample(gpt, prefix, 12, GREEDY))


# ---- sequences


@pytest.mark.parametrize("n_unmasked", [0, 4])
def test_greedy_codes_are_the_same_without_a_cache(n_unmasked):
    gpt, prefix = make_gpt(n_unmasked=n_unmasked), tokens(5, 4)
    codes = sample(gpt, prefix, 30, GREEDY)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, slow_complete(gpt, prefix, prefix[:, :0], 30))
    assert len(codes.unique()) > 5


def test_a_seed_is_a_sample():
    gpt, prefix = make_gpt(), tokens(3, 2)
    first = sample(gpt, prefix, 12, generator=seeded(5))
    torch.rand(7)
    assert torch.equal(sample(gpt, prefix, 12, generator=seeded(5)), first)
    assert not torch.equal(sample(gpt, prefix, 12, generator=seeded(6)), first)


@pytest.mark.parametrize("given", [0, 1, 6, 12])
def test_a_completion_keeps_what_is_given_and_continues_it(given):
    gpt, prefix, codes = make_gpt(), tokens(3, 2), tokens(3, given, seed=2)
    completed = complete(gpt, prefix, codes, 12, GREEDY)
    assert completed.shape == (3, 12)
    assert torch.equal(completed[:, :given], codes)
    assert torch.equal(completed, slow_complete(gpt, prefix, codes, 12))


def test_a_block_can_be_filled_to_its_end():
    gpt, prefix = make_gpt(block_size=16), tokens(2, 4)
    assert sample(gpt, prefix, 13, GREEDY).shape == (2, 13)
    with pytest.raises(InputError, match=r"^17 tokens are too many for this transformer: its block_size is 16$"):
        sample(gpt, prefix, 14, GREEDY)


def test_dropout_rests_while_sampling_and_wakes_up_again():
    gpt, prefix = make_gpt(resid_dropout=0.5), tokens(3, 2)
    expected = sample(gpt, prefix, 12, GREEDY)
    gpt.train()
    assert torch.equal(sample(gpt, prefix, 12, GREEDY), expected)
    assert gpt.training
    assert gpt.blocks[0].mlp[3].training


def test_sampling_leaves_no_gradient_behind():
    gpt = make_gpt()
    codes = sample(gpt, tokens(3, 2), 4, generator=seeded())
    gpt(codes).sum().backward()  # codes can be trained on
    assert gpt.tok_emb.weight.grad is not None


# ---- guidance


@pytest.mark.parametrize("scale", [-1.0, 0.5, 3.0])
def test_guidance_moves_the_logits_away_from_the_unconditional_ones(scale):
    gpt, prefix, given = make_gpt(), tokens(4, 3), tokens(4, 2, seed=2)
    drawing, blank = DrawingSettings(greedy=True, guidance=scale), tokens(4, 3, seed=3)
    guided = complete(gpt, prefix, given, 14, drawing, unconditional=blank)
    assert torch.equal(guided, slow_complete(gpt, prefix, given, 14, scale, blank))
    assert not torch.equal(guided, complete(gpt, prefix, given, 14, GREEDY))


def test_guidance_of_one_is_the_condition_and_of_zero_is_none():
    gpt, prefix, blank = make_gpt(), tokens(4, 3), tokens(4, 3, seed=3)
    for scale, alone in ((1.0, prefix), (0.0, blank)):
        guided = sample(gpt, prefix, 12, DrawingSettings(guidance=scale), unconditional=blank, generator=seeded())
        assert torch.equal(guided, sample(gpt, alone, 12, generator=seeded()))


# ---- allowed tokens


SCATTERED = torch.tensor([0, 3, 4, 9, 17, 22])


def test_only_allowed_tokens_are_sampled():
    gpt, prefix = make_gpt(), tokens(50, 2)
    hot = DrawingSettings(temperature=100.0)
    few = DrawingSettings(temperature=100.0, top_k=5)
    codes = sample(gpt, prefix, 12, few, allowed=SCATTERED, generator=seeded())
    assert torch.equal(codes.unique(), SCATTERED)
    free = sample(gpt, prefix, 12, hot, generator=seeded())
    assert len(free.unique()) == VOCABULARY


@pytest.mark.parametrize("allowed", [SCATTERED, torch.arange(5, 9), torch.tensor([7]), torch.arange(VOCABULARY)])
@pytest.mark.parametrize("n_unmasked", [0, 4])
@pytest.mark.parametrize("guided", [False, True])
def test_allowed_tokens_are_those_of_masked_logits(allowed, n_unmasked, guided):
    gpt, prefix, given = make_gpt(n_unmasked=n_unmasked), tokens(4, 3), tokens(4, 5, seed=2)
    guidance, settings = 2.0 if guided else 1.0, {"unconditional": tokens(4, 3, seed=3), "allowed": allowed}
    slow = partial(slow_complete, gpt, prefix, given, 24, guidance, **settings)
    greedy = complete(gpt, prefix, given, 24, DrawingSettings(greedy=True, guidance=guidance), **settings)
    assert torch.equal(greedy, slow())
    drawn = complete(gpt, prefix, given, 24, DrawingSettings(guidance=guidance), generator=seeded(), **settings)
    assert torch.equal(drawn, slow(choose=slow_draw(allowed, seeded())))
    assert len(allowed) == 1 or not torch.equal(drawn, greedy)


def test_filters_count_allowed_tokens_only():
    """The four likeliest of all are not allowed: the two likeliest of the rest, and of its probability, remain."""
    logits = [9.0, 8.0, 7.0, 6.0, 2.0, 1.0, 0.0, -9.0]
    prefix, allowed = torch.zeros(2000, 1, dtype=torch.int64), torch.tensor([4, 5, 6, 7])
    for drawing in ({"top_k": 2}, {"top_p": 0.8}):
        codes = sample(constant_gpt(logits), prefix, 1, DrawingSettings(**drawing), allowed=allowed, generator=seeded())
        counts = codes.flatten().bincount(minlength=8)[4:6]
        assert counts.sum() == 2000
        assert chisquare(counts, torch.tensor([2.0, 1.0]).double().softmax(0) * 2000).pvalue > 1e-3


def test_the_whole_vocabulary_is_the_default():
    gpt, prefix = make_gpt(), tokens(3, 2)
    everything = sample(gpt, prefix, 12, allowed=torch.arange(VOCABULARY), generator=seeded())
    assert torch.equal(sample(gpt, prefix, 12, generator=seeded()), everything)


def test_codes_that_are_not_allowed_can_be_given():
    gpt, prefix, given = make_gpt(), tokens(2, 2), torch.full((2, 3), 11)
    codes = complete(gpt, prefix, given, 9, allowed=SCATTERED, generator=seeded())
    assert torch.equal(codes[:, :3], given)
    assert torch.isin(codes[:, 3:], SCATTERED).all()


# ---- the device is never waited for


class Waits(TorchDispatchMode):
    """Counts the operations that read a value back from the device, or do so inside their kernel."""

    OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "multinomial", "equal")

    def __init__(self):
        super().__init__()
        self.count = self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.total += 1
        self.count += any(name in function.name() for name in self.OPERATIONS)
        return function(*args, **(kwargs or {}))


def waits_of(function):
    with Waits() as waits:
        function()
    return waits


@pytest.mark.parametrize("sliding", [False, True])
def test_no_further_code_waits_for_the_device(sliding):
    gpt, prefix = make_gpt(), tokens(2, 2)
    drawing = DrawingSettings(top_k=9, top_p=0.9, guidance=2.0)
    settings = {"unconditional": tokens(2, 2, seed=2), "allowed": torch.arange(20)}

    def run(rows):
        if sliding:
            return waits_of(lambda: sliding_window_sample(gpt, prefix, rows, 4, drawing, window=(2, 2), **settings))
        return waits_of(lambda: sample(gpt, prefix, 4 * rows, drawing, **settings))

    short, long = run(2), run(8)
    assert short.count == long.count
    assert long.total > 2 * short.total
    assert waits_of(lambda: prefix.max().item()).count == 1


# ---- sliding windows


def local(position, side, window=4):
    """Where in the window the code stands, for a window of 4: taming-transformers' rule for 16, with 8 halved twice."""
    half = window // 2
    if position <= half:
        return position
    if side - position < window - half:
        return window - (side - position)
    return half


def slow_grid(gpt, prefix, height, width, window=(4, 4)):
    """Greedy codes; for each of them the whole window is read, those of its codes that are not there yet as zeros."""
    grid = torch.zeros(len(prefix), height, width, dtype=torch.int64)
    for i, j in itertools.product(range(height), range(width)):
        li, lj = local(i, height, window[0]), local(j, width, window[1])
        part = (slice(None), slice(i - li, i - li + window[0]), slice(j - lj, j - lj + window[1]))
        condition = prefix if prefix.ndim == 2 else prefix[part].flatten(1)
        logits = gpt(torch.cat((condition, grid[part].flatten(1)), 1)[:, :-1])
        logits = logits[:, condition.shape[1] - 1 :].unflatten(1, window)
        grid[:, i, j] = logits[:, li, lj].argmax(-1)
    return grid


class Spy(GPT):
    """Answers one token for sure, the checksum of all that it was told of the window, and notes what that was."""

    def __init__(self):
        super().__init__(VOCABULARY, 40, Size(1, 1, 4))
        self.told = torch.empty(0)
        self.contexts = []
        self.read = 0

    def next_logits(self, indices, cache=None):
        self.told = torch.cat((self.told, indices), 1) if cache.length else indices
        cache.length += indices.shape[1]
        self.read += indices.shape[1]
        self.contexts.append(self.told.tolist())
        return torch.nn.functional.one_hot(self.checksum(self.told), VOCABULARY) * 1e4

    @staticmethod
    def checksum(context):
        return (context * (torch.arange(context.shape[1]) + 3) ** 2).sum(1) % VOCABULARY


@pytest.mark.parametrize("grid", [(4, 4), (4, 9), (7, 4), (5, 5), (6, 11)], ids=str)
def test_each_code_is_told_its_own_window(grid):
    spy, prefix, (height, width) = Spy(), tokens(2, 3), grid
    codes = sliding_window_sample(spy, prefix, height, width, window=(4, 4), generator=seeded())
    assert len(spy.contexts) == height * width
    for (i, j), context in zip(itertools.product(range(height), range(width)), spy.contexts, strict=True):
        li, lj = local(i, height), local(j, width)
        window = codes[:, i - li : i - li + 4, j - lj : j - lj + 4]
        expected = torch.cat((prefix, window.flatten(1)[:, : 4 * li + lj]), 1)
        assert context == expected.tolist()
        assert torch.equal(codes[:, i, j], Spy.checksum(expected))


@pytest.mark.parametrize(
    ("grid", "read"),
    [
        ((4, 4), 3 + 15),
        # two windows in row i: prefix and rows above, then two codes; all this with two codes, then one
        ((4, 5), sum((3 + 4 * i + 2) + (3 + 4 * i + 2 + 1) for i in range(4))),
    ],
    ids=str,
)
def test_a_window_that_stays_is_read_once(grid, read):
    spy = Spy()
    sliding_window_sample(spy, tokens(2, 3), *grid, window=(4, 4), generator=seeded())
    assert spy.read == read


@pytest.mark.parametrize("grid", [(4, 4), (5, 9), (8, 4)], ids=str)
@pytest.mark.parametrize("condition", ["tokens", "map"])
def test_greedy_grids_are_those_of_whole_windows_read_anew(grid, condition):
    gpt = make_gpt()
    prefix = tokens(2, 3) if condition == "tokens" else tokens(2, *grid)
    codes = sliding_window_sample(gpt, prefix, *grid, GREEDY, window=(4, 4))
    assert torch.equal(codes, slow_grid(gpt, prefix, *grid))


@pytest.mark.parametrize("window", [(3, 5), (5, 3), (1, 4), (1, 1)], ids=str)
def test_a_window_can_have_any_sides(window):
    gpt, prefix = make_gpt(), tokens(2, 3)
    codes = sliding_window_sample(gpt, prefix, 6, 7, GREEDY, window=window)
    assert torch.equal(codes, slow_grid(gpt, prefix, 6, 7, window))


@pytest.mark.parametrize("drawing", [{}, {"top_k": 5, "temperature": 1.3}, {"greedy": True}], ids=str)
def test_a_grid_of_the_windows_size_is_a_plain_sample(drawing):
    gpt, prefix, drawing = make_gpt(), tokens(3, 2), DrawingSettings(**drawing)
    grid = sliding_window_sample(gpt, prefix, 4, 6, drawing, window=(4, 6), generator=seeded())
    assert torch.equal(grid.flatten(1), sample(gpt, prefix, 24, drawing, generator=seeded()))


def test_a_conditioning_map_of_the_windows_size_is_a_plain_prefix():
    gpt, condition, blank = make_gpt(), tokens(3, 4, 4), tokens(3, 4, 4, seed=2)
    guided = DrawingSettings(guidance=2.0)
    grid = sliding_window_sample(gpt, condition, 4, 4, guided, window=(4, 4), unconditional=blank, generator=seeded())
    plain = sample(gpt, condition.flatten(1), 16, guided, unconditional=blank.flatten(1), generator=seeded())
    assert torch.equal(grid.flatten(1), plain)


def test_a_grid_has_allowed_codes_only():
    settings = {"window": (4, 4), "allowed": SCATTERED, "generator": seeded()}
    codes = sliding_window_sample(make_gpt(), tokens(2, 3), 5, 6, DrawingSettings(temperature=5.0), **settings)
    assert torch.equal(codes.unique(), SCATTERED)


# ---- wrong input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, "temperature 0.0 is not positive; for the most likely codes choose greedy=True"),
        ({"temperature": -1.0}, "temperature -1.0 is not positive; for the most likely codes choose greedy=True"),
        ({"temperature": math.nan}, "temperature nan is not positive; for the most likely codes choose greedy=True"),
        ({"top_k": 0}, "top_k 0 leaves no token: the least is 1"),
        ({"top_p": 0.0}, "top_p 0.0 is no share of probability: it lies above 0 and is at most 1"),
        ({"top_p": 1.5}, "top_p 1.5 is no share of probability: it lies above 0 and is at most 1"),
        ({"top_p": math.nan}, "top_p nan is no share of probability: it lies above 0 and is at most 1"),
        (
            {"guidance": 2.0, "unconditional": torch.zeros(3, 1, dtype=torch.int64)},
            "the unconditional prefix (3, 1) is not of the shape of the prefix (3, 2)",
        ),
        ({"guidance": 2.0}, "guidance 2.0 needs an unconditional prefix beside the prefix"),
        ({"guidance": math.nan}, "guidance: input should be a finite number, not nan"),
        ({"temperature": math.inf}, "temperature: input should be a finite number, not inf"),
        ({"top_k": 2.5}, "top_k: input should be a valid integer, got a number with a fractional part, not 2.5"),
        (
            {"allowed": torch.tensor([3, 23])},
            "allowed has tokens from 3 to 23: they increase strictly within 0 to 22",
        ),
        (
            {"allowed": torch.tensor([-1, 3])},
            "allowed has tokens from -1 to 3: they increase strictly within 0 to 22",
        ),
        (
            {"allowed": torch.tensor([3, 3, 7])},
            "allowed has tokens from 3 to 7: they increase strictly within 0 to 22",
        ),
        (
            {"allowed": torch.tensor([3, 9, 7])},
            "allowed has tokens from 3 to 9: they increase strictly within 0 to 22",
        ),
        (
            {"allowed": torch.tensor([], dtype=torch.int64)},
            "allowed is (0,) torch.int64: a list of tokens is (A > 0,) torch.int64",
        ),
        (
            {"allowed": torch.ones(23, dtype=torch.bool)},
            "allowed is (23,) torch.bool: a list of tokens is (A > 0,) torch.int64",
        ),
        (
            {"allowed": torch.zeros(2, 1, dtype=torch.int64)},
            "allowed is (2, 1) torch.int64: a list of tokens is (A > 0,) torch.int64",
        ),
    ],
    ids=str,
)
def test_wrong_settings_are_told_in_one_line(settings, message):
    others = {name: settings[name] for name in ("unconditional", "allowed") if name in settings}
    drawing = {name: value for name, value in settings.items() if name not in others}
    for function in (
        lambda: sample(make_gpt(), tokens(3, 2), 5, DrawingSettings.of(**drawing), **others),
        lambda: sliding_window_sample(
            make_gpt(), tokens(3, 2), 1, 5, DrawingSettings.of(**drawing), window=(1, 3), **others
        ),
    ):
        with pytest.raises(InputError) as caught:
            function()
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("prefix", "given", "message"),
    [
        (tokens(3, 0), tokens(3, 0), "prefix (3, 0) is empty: sampling begins with a token, such as a start token"),
        (tokens(3, 2, 2), tokens(3, 0), "prefix (3, 2, 2) is not of the shape (B, P)"),
        (tokens(3, 2) + 22, tokens(3, 0), "this transformer knows 0 to 22"),
        (tokens(3, 2), tokens(3, 6), "6 codes are given, more than the 5 asked for"),
        (tokens(3, 2), tokens(2, 1), "codes are given for 2 sequences, the prefix is of 3"),
    ],
    ids=["empty", "map", "unknown token", "too many", "other batch"],
)
def test_wrong_tokens_are_told_in_one_line(prefix, given, message):
    with pytest.raises(InputError) as caught:
        complete(make_gpt(), prefix, given, 5)
    assert str(caught.value).endswith(message)


def test_a_grid_smaller_than_the_window_is_refused():
    with pytest.raises(InputError, match=r"^a grid of 3 x 9 codes has no room for a window of 4 x 4$"):
        sliding_window_sample(make_gpt(), tokens(2, 3), 3, 9, window=(4, 4))


def test_a_lone_prefix_is_refused():
    with pytest.raises(InputError, match=r"^prefix \(3,\) is not of the shape \(B, P\)$"):
        complete(make_gpt(), tokens(3), tokens(3, 0), 4)
    with pytest.raises(InputError, match=r"^prefix \(3,\) is not of the shape \(B, P\) or \(B, H, W\)$"):
        sliding_window_sample(make_gpt(), tokens(3), 4, 4, window=(4, 4))


def test_a_conditioning_map_must_cover_the_grid():
    with pytest.raises(InputError, match=r"^the prefix is a map of \(4, 4\) tokens, the grid of \(5, 5\) codes$"):
        sliding_window_sample(make_gpt(), tokens(2, 4, 4), 5, 5, window=(4, 4))
