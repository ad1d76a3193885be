"""The probability of a grid of codes: the loss of a position, what it may depend on, and what a training step hides."""

import pytest
import torch

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.transformer.conditions import ClassCondition, CoordinateCondition, NoCondition
from vqtool.vqgan.transformer.gpt import GPT, Size
from vqtool.vqgan.transformer.model import CodeTransformer, Vocabulary, build_transformer
from vqtool.vqgan.transformer.orders import ORDERS, code_order

K, C = 11, 3
GRID = (3, 4)
PREFIX = 2


def make_model(**settings):
    """Random weights far from their initial values."""
    vocabulary = Vocabulary(K, C)
    gpt = GPT(vocabulary.size, PREFIX + 12, Size(layers=2, heads=2, width=16))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return CodeTransformer(gpt, vocabulary, GRID, **settings).eval()


@pytest.fixture
def batch():
    """Prefixes (5, 2) of the condition's tokens and codes (5, 3, 4)."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(K, K + C, (5, PREFIX), generator=generator), torch.randint(K, (5, *GRID), generator=generator)


def read(model, prefix, codes):
    """What the GPT reads, (B, P + N - 1)."""
    seen = []
    hook = model.gpt.tok_emb.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    model(prefix, codes)
    hook.remove()
    (tokens,) = seen
    return tokens


def test_the_vocabulary_is_codes_then_condition_then_nothing():
    vocabulary = Vocabulary(codes=16, condition=10)
    assert (vocabulary.size, vocabulary.nothing) == (27, 26)
    assert Vocabulary(codes=16, condition=0).nothing == 16


# ---- likelihood


@pytest.mark.parametrize("name", ORDERS)
def test_the_loss_is_that_of_a_slow_loop_over_the_tokens(batch, name):
    model = make_model(order=name)
    prefix, codes = batch
    places = [divmod(place, GRID[1]) for place in code_order(name, *GRID).tolist()]
    expected = torch.full((5, *GRID), torch.nan)
    for b in range(5):
        told = prefix[b].tolist()
        for i, j in places:
            scores = model.gpt(torch.tensor([told]))[0, -1].double()
            expected[b, i, j] = scores.exp().sum().log() - scores[codes[b, i, j]]
            told.append(codes[b, i, j].item())
    torch.testing.assert_close(model(prefix, codes), expected.float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ORDERS)
def test_the_loss_of_a_position_does_not_depend_on_later_codes(batch, name):
    model = make_model(order=name)
    prefix, codes = batch
    nll = model.sequence(model(prefix, codes))
    order = code_order(name, *GRID)
    for step in range(12):
        changed = codes.clone().flatten(1)
        changed[:, order[step]] = (changed[:, order[step]] + 1) % K
        after = model.sequence(model(prefix, changed.view_as(codes)))
        torch.testing.assert_close(after[:, :step], nll[:, :step], rtol=1e-5, atol=1e-5)
        assert (after[:, step:] != nll[:, step:]).all()  # the code itself, and whatever comes after it


def test_every_loss_depends_on_the_condition(batch):
    model = make_model()
    prefix, codes = batch
    assert (model(prefix, codes) != model(model.no_condition(prefix), codes)).all()


def test_logits_are_over_the_whole_vocabulary_and_in_order(batch):
    model = make_model(order="spiral-in")
    prefix, codes = batch
    logits = model.logits(prefix, codes)
    assert logits.shape == (5, 12, K + C + 1)
    whole = model.gpt(torch.cat((prefix, model.sequence(codes)), 1))
    torch.testing.assert_close(logits, whole[:, PREFIX - 1 : -1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ORDERS)
def test_what_was_put_in_order_is_arranged_again(batch, name):
    model = make_model(order=name)
    codes = batch[1]
    assert torch.equal(model.arranged(model.sequence(codes)), codes)
    assert torch.equal(model.sequence(codes), codes.flatten(1)[:, code_order(name, *GRID)])


# ---- training


def test_without_errors_and_gaps_training_reads_what_is_there(batch):
    model = make_model(order="z-curve").train()
    prefix, codes = batch
    assert torch.equal(read(model, prefix, codes), torch.cat((prefix, model.sequence(codes)[:, :-1]), 1))


def test_with_pkeep_zero_all_codes_that_are_read_are_random(batch):
    model = make_model(pkeep=0.0).train()
    prefix, _ = batch
    prefix = prefix.repeat(200, 1)
    codes = torch.full((1000, *GRID), 4)
    torch.manual_seed(0)
    tokens = read(model, prefix, codes)
    assert torch.equal(tokens[:, :PREFIX], prefix)
    counts = torch.bincount(tokens[:, PREFIX:].flatten(), minlength=K)
    assert len(counts) == K  # codes only, and every one of them
    torch.testing.assert_close(counts / counts.sum(), torch.full((K,), 1 / K), rtol=0, atol=0.015)


def test_pkeep_is_the_share_of_codes_that_stay(batch):
    model = make_model(pkeep=0.7).train()
    codes = torch.full((1000, *GRID), 4)
    torch.manual_seed(0)
    tokens = read(model, batch[0].repeat(200, 1), codes)[:, PREFIX:]
    assert (tokens == 4).double().mean().item() == pytest.approx(0.7 + 0.3 / K, abs=0.015)


def test_targets_stay_what_they_are_whatever_is_read(batch):
    model = make_model(pkeep=0.0, order="alternate").train()
    prefix, codes = batch
    torch.manual_seed(0)
    tokens = read(model, prefix, codes)
    torch.manual_seed(0)
    nll = model(prefix, codes)
    scores = model.gpt(tokens)[:, PREFIX - 1 :].log_softmax(-1)
    expected = -scores.gather(-1, model.sequence(codes)[..., None])[..., 0]
    torch.testing.assert_close(model.sequence(nll), expected, rtol=1e-4, atol=1e-4)


def test_with_drop_one_every_prefix_says_nothing(batch):
    model = make_model(drop=1.0).train()
    prefix, codes = batch
    tokens = read(model, prefix, codes)
    assert (tokens[:, :PREFIX] == K + C).all()
    assert torch.equal(tokens[:, PREFIX:], codes.flatten(1)[:, :-1])
    torch.testing.assert_close(model(prefix, codes), model.eval()(model.no_condition(prefix), codes))


def test_a_prefix_is_left_out_as_a_whole(batch):
    model = make_model(drop=0.3).train()
    prefix, codes = batch
    torch.manual_seed(0)
    gone = read(model, prefix.repeat(400, 1), codes.repeat(400, 1, 1))[:, :PREFIX] == K + C
    assert torch.equal(gone.any(1), gone.all(1))
    assert gone[:, 0].double().mean().item() == pytest.approx(0.3, abs=0.03)


def test_in_evaluation_nothing_is_replaced_or_left_out(batch):
    prefix, codes = batch
    plain, hidden = make_model(), make_model(pkeep=0.0, drop=1.0)
    assert torch.equal(read(hidden, prefix, codes), read(plain, prefix, codes))
    assert torch.equal(hidden(prefix, codes), plain(prefix, codes))


# ---- as configured


def test_a_model_is_built_as_configured(second_stage):
    settings = {"layers": 2, "heads": 4, "width": 8, "order": "spiral-out", "pkeep": 0.9, "dropout": 0.25}
    config = second_stage(transformer=settings, condition={"kind": "class", "drop": 0.2})
    model = build_transformer(config, ClassCondition(16, ("a", "b", "c")), (4, 4))
    assert model.vocabulary == (16, 3)
    assert (model.gpt.vocab_size, model.gpt.block_size, model.gpt.size) == (20, 17, (2, 4, 8))
    assert (model.pkeep, model.drop, model.grid) == (0.9, 0.2, (4, 4))
    assert torch.equal(model.order, code_order("spiral-out", 4, 4))
    dropouts = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert set(dropouts) == {0.25}
    assert all(block.attn.attn_dropout == 0.25 for block in model.gpt.blocks)


def test_the_order_is_no_part_of_the_weights(second_stage):
    model = build_transformer(second_stage(transformer={"order": "random"}), NoCondition(16), (4, 4))
    assert all(name.startswith("gpt.") for name in model.state_dict())


def test_the_seed_of_the_run_decides_about_the_weights(second_stage):
    def weights(seed):
        model = build_transformer(second_stage(train={"seed": seed}), NoCondition(16), (4, 4))
        return model.gpt.head.weight.detach()

    torch.manual_seed(5)
    first = weights(0)
    after = torch.rand(1)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(1), after)  # nobody else's random numbers are drawn
    assert torch.equal(weights(0), first)
    assert not torch.equal(weights(1), first)


def test_the_block_holds_a_prefix_of_any_length(second_stage):
    condition = CoordinateCondition(16, 8, (4, 4))
    model = build_transformer(second_stage(condition={"kind": "coordinates", "levels": 8}), condition, (4, 4))
    nll = model(torch.full((2, 16), 16 + 7), torch.full((2, 4, 4), 15))
    assert nll.shape == (2, 4, 4)


@pytest.mark.parametrize(("sos", "right"), [(16, True), (17, False), (1000, False)])
def test_a_start_token_beyond_the_vocabulary_is_refused(second_stage, sos, right):
    config = second_stage(transformer={"sos": sos})
    if right:
        assert build_transformer(config, NoCondition(sos), (4, 4)).gpt.vocab_size == 17
        return
    with pytest.raises(InputError, match=rf"^transformer\.sos {sos} is no token: there are 17, 0 to 16$"):
        build_transformer(config, NoCondition(sos), (4, 4))
