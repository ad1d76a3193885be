import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.quantizers import search as assignment
from vqtool.vqgan.quantizers.search import nearest_codes


def nearest_by_loop(latents: Tensor, codebook: Tensor) -> Tensor:
    """The slow twin: float64 distances, one token after another, written out without expanding the square."""
    codes = codebook.double()
    return torch.tensor([int((codes - z).square().sum(1).argmin()) for z in latents.double()], dtype=torch.int64)


def random_data(N: int, D: int, K: int, offset: float = 0.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(N + D + K)
    return torch.randn(N, D, generator=generator) + offset, torch.randn(K, D, generator=generator) + offset


@pytest.fixture
def small_tiles(monkeypatch):
    """Several tiles both ways on data that a loop can check, the last ones not full."""
    monkeypatch.setattr(assignment, "_CPU_TILE", (96, 128))


SHAPES = [(1, 1, 1), (7, 3, 1), (5, 1, 9), (64, 8, 64), (300, 16, 65), (96, 4, 128), (97, 4, 129), (500, 64, 1000)]


@pytest.mark.parametrize(("N", "D", "K"), SHAPES)
def test_the_search_finds_the_float64_argmin(N, D, K):
    latents, codebook = random_data(N, D, K)
    assert torch.equal(nearest_codes(latents, codebook), nearest_by_loop(latents, codebook))


@pytest.mark.parametrize(("N", "D", "K"), SHAPES)
@pytest.mark.usefixtures("small_tiles")
def test_the_search_finds_the_float64_argmin_across_tiles(N, D, K):
    latents, codebook = random_data(N, D, K)
    assert torch.equal(nearest_codes(latents, codebook), nearest_by_loop(latents, codebook))


def test_the_search_finds_the_float64_argmin_in_tiles_of_the_real_size():
    tokens, codes = assignment._CPU_TILE
    latents, codebook = random_data(tokens + 3, 8, codes + 5)
    assert torch.equal(nearest_codes(latents, codebook), nearest_by_loop(latents, codebook))


@pytest.mark.parametrize("offset", [10.0, 50.0])
def test_a_common_mean_costs_no_digits(offset):
    latents, codebook = random_data(2000, 64, 500, offset)
    assert torch.equal(nearest_codes(latents, codebook), nearest_by_loop(latents, codebook))


def test_the_uncentred_expansion_does_lose_digits_on_such_data():
    latents, codebook = random_data(2000, 64, 500, offset=50.0)
    uncentred = (latents @ codebook.T - codebook.square().sum(1) / 2).argmax(1)
    assert not torch.equal(uncentred, nearest_by_loop(latents, codebook))


# ---- data on which a float32 search can lose its digits


def excess_in_tolerances(latents: Tensor, codebook: Tensor, center: Tensor) -> float:
    """How much farther than the nearest code the found one is, at worst, in units of what the search promises."""
    found, best = nearest_codes(latents, codebook), nearest_by_loop(latents, codebook)
    z, codes = latents.double(), codebook.double()
    reach = (z - center).norm(dim=1) + torch.maximum(*((codes[index] - center).norm(dim=1) for index in (found, best)))
    excess = (z - codes[found]).square().sum(1) - (z - codes[best]).square().sum(1)
    assert (excess >= 0).all()
    return (excess / ((latents.shape[1] + 8) * 2.0**-23 * reach.square()).clamp(min=1e-300)).max().item()


def center_of(codes: Tensor) -> Tensor:
    """Where the search would centre, had it these codes only."""
    return codes.double().median(0).values


FAR = [1e2, 1e3, 1e4, 1e5, 1e6]


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize(("K", "D"), [(16, 4), (16, 64), (512, 64), (64, 256)])
def test_one_code_far_out_costs_the_others_no_digits(K, D, far):
    latents, codebook = random_data(500, D, K)
    codebook[K // 3] = far * codebook[K // 3].sign()
    latents[7] = codebook[K // 3] + 1
    assert torch.equal(nearest_codes(latents, codebook), nearest_by_loop(latents, codebook))


@pytest.mark.parametrize("far", FAR)
@pytest.mark.parametrize("where", ["first", "last", "every third", "random"])
@pytest.mark.parametrize("K", [40, 63, 64, 300, 5000])
def test_no_minority_of_codes_far_out_costs_the_others_any_digits(K, where, far):
    latents, codebook = random_data(300, 16, K)
    outliers = {
        "first": torch.arange(K) < K // 3,
        "last": torch.arange(K) >= K - K // 3,
        "every third": torch.arange(K) % 3 == 1,
        "random": torch.rand(K, generator=torch.Generator().manual_seed(K)) < 0.3,
    }[where]
    codebook[outliers] += far  # all of them on one side
    assert excess_in_tolerances(latents, codebook, center_of(codebook[~outliers])) <= 1
    codebook[outliers] = far * torch.randn(int(outliers.sum()), 16, generator=torch.Generator().manual_seed(1))
    assert excess_in_tolerances(latents, codebook, center_of(codebook[~outliers])) <= 1


def test_a_search_that_is_centred_on_the_mean_does_lose_digits_there():
    latents, codebook = random_data(500, 64, 512)
    codebook[0] = 1e5
    centre = codebook.mean(0)
    codes = codebook - centre
    by_mean = ((latents - centre) @ codes.T - codes.square().sum(1) / 2).argmax(1)
    assert (by_mean != nearest_by_loop(latents, codebook)).sum() > 5


@pytest.mark.parametrize("outlier", [False, True])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("K", [1, 2, 3, 5, 700])
def test_neither_offset_nor_scale_costs_digits(K, offset, scale, outlier):
    latents, codebook = (side * scale for side in random_data(400, 24, K, offset))
    if outlier:
        codebook[0] += 1e4 * scale
    bulk = codebook[1:] if outlier and K > 2 else codebook
    assert excess_in_tolerances(latents, codebook, center_of(bulk)) <= 1


@pytest.mark.parametrize("away", [10.0, 1e3, 1e5])
def test_latents_far_from_all_codes_get_a_code_that_is_nearest_within_the_promise(away):
    latents, codebook = random_data(400, 32, 600)
    latents *= away
    assert excess_in_tolerances(latents, codebook, center_of(codebook)) <= 1
    latents, codebook = random_data(400, 32, 600)
    codebook /= 600
    assert excess_in_tolerances(latents + away, codebook, center_of(codebook)) <= 1


@pytest.mark.parametrize("away", FAR)
@pytest.mark.parametrize("share", [3, 2])
def test_crowds_of_codes_far_from_each_other_are_told_apart_within_the_promise(share, away):
    latents, codebook = random_data(400, 32, 600)
    codebook[::share] += away
    latents[::2] += away
    assert excess_in_tolerances(latents, codebook, assignment._center(codebook)) <= 1


@pytest.mark.parametrize("away", [1e2, 3e2])
def test_codes_of_a_far_crowd_find_themselves_down_to_a_spacing_of_r_over_1000(away):
    codebook = random_data(400, 32, 600)[1]
    codebook[::3] += away
    reach = 2 * (codebook.double() - assignment._center(codebook)).norm(dim=1).max()
    assert torch.pdist(codebook[::3].double()).min() > reach / 1000
    assert torch.equal(nearest_codes(codebook, codebook), torch.arange(600))


def test_constant_dimensions_cost_no_digits():
    latents, codebook = random_data(500, 64, 512)
    latents[:, ::2] = codebook[:, ::2] = 1e4
    codebook[3, 0] = -1e6  # but for one code
    assert torch.equal(nearest_codes(latents, codebook), nearest_by_loop(latents, codebook))


def test_a_huge_codebook_with_far_codes_is_searched_as_exactly():
    latents, codebook = random_data(40, 64, 70_000)
    codebook[::100] *= 1e5
    assert torch.equal(nearest_codes(latents, codebook), nearest_by_loop(latents, codebook))


@pytest.mark.usefixtures("small_tiles")
def test_of_equal_codes_the_lowest_index_wins_beside_one_far_out():
    latents, codes = random_data(200, 16, 150)
    codes[149] = 1e5
    codebook = codes.repeat(4, 1)
    assert torch.equal(nearest_codes(latents, codebook), nearest_by_loop(latents, codes))


def test_a_latent_gets_the_same_code_whatever_latents_come_with_it():
    latents, codebook = random_data(300, 32, 200, offset=100.0)
    alone = nearest_codes(latents[:40], codebook)
    latents[40:] *= 1e6
    assert torch.equal(nearest_codes(latents, codebook)[:40], alone)


# ---- equal codes, precision, layout


@pytest.mark.usefixtures("small_tiles")
def test_of_equal_codes_the_lowest_index_wins():
    latents, codes = random_data(200, 16, 150)
    order = torch.randperm(600, generator=torch.Generator().manual_seed(0))
    codebook = codes.repeat(4, 1)[order]
    lowest = torch.stack([(order % 150 == code).nonzero()[0, 0] for code in range(150)])
    assert torch.equal(nearest_codes(latents, codebook), lowest[nearest_by_loop(latents, codes)])


def test_a_codebook_of_equal_codes_gives_all_tokens_to_code_zero():
    latents, codebook = random_data(50, 8, 1)
    assert nearest_codes(latents, codebook.expand(200, -1)).eq(0).all()


def test_autocast_does_not_change_a_single_index():
    latents, codebook = random_data(3000, 32, 700, offset=5.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (latents @ codebook.T).dtype == torch.bfloat16, "autocast must be at work here"
        under_autocast = nearest_codes(latents, codebook)
    assert torch.equal(under_autocast, nearest_codes(latents, codebook))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_searched_in_float32(dtype):
    latents, codebook = (side.to(dtype) for side in random_data(1000, 32, 300, offset=10.0))
    assert torch.equal(nearest_codes(latents, codebook), nearest_codes(latents.float(), codebook.float()))


@pytest.mark.parametrize("side", ["latents", "codebook", "both"])
def test_double_precision_input_is_searched_in_double_precision(side):
    latents, codebook = (each.double() for each in random_data(300, 16, 100))
    codebook = codebook.repeat(2, 1)
    codebook[100:] += 1e-9 * torch.randn(100, 16, generator=torch.Generator().manual_seed(0)).double()
    if side == "latents":
        codebook = codebook.float()
    elif side == "codebook":
        latents = latents.float()
    assert torch.equal(nearest_codes(latents, codebook), nearest_by_loop(latents, codebook))


def test_the_two_sides_may_differ_in_dtype():
    latents, codebook = random_data(100, 8, 50)
    assert torch.equal(nearest_codes(latents.bfloat16(), codebook), nearest_codes(latents.bfloat16().float(), codebook))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_matmul_shortcuts_are_off_in_the_search_and_as_before_after_it(device, precision):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(precision)
        with assignment._exact_matmul(torch.device(device)):
            backend = torch.backends.cuda if device == "cuda" else torch.backends.mkldnn
            assert getattr(backend.matmul, "fp32_precision", "ieee") not in ("tf32", "bf16")
            if not hasattr(torch.backends, "fp32_precision"):
                assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == precision
        assert torch.backends.cuda.matmul.allow_tf32 == (precision != "highest")
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_a_latent_that_is_not_finite_gets_a_valid_index_and_disturbs_no_other(value):
    latents, codebook = random_data(200, 4, 129)
    clean = nearest_codes(latents, codebook)
    latents[17] = value
    latents[18, 2] = value
    indices = nearest_codes(latents, codebook)
    assert ((indices >= 0) & (indices < len(codebook))).all()
    others = [token for token in range(200) if token not in (17, 18)]
    assert torch.equal(indices[others], clean[others])


def test_no_tokens_give_no_indices():
    indices = nearest_codes(torch.empty(0, 8), torch.randn(5, 8))
    assert indices.shape == (0,)
    assert indices.dtype == torch.int64


def test_layout_of_the_input_does_not_matter():
    latents, codebook = random_data(400, 24, 130)
    columns_first = latents.T.contiguous().T
    every_other = codebook.repeat_interleave(2, 0)[::2]
    assert not columns_first.is_contiguous()
    assert not every_other.is_contiguous()
    assert torch.equal(nearest_codes(columns_first, every_other), nearest_codes(latents, codebook))


def test_the_search_leaves_no_graph_and_no_mark_on_its_input():
    latents, codebook = (side.requires_grad_() for side in random_data(100, 8, 50))
    kept = latents.detach().clone(), codebook.detach().clone()
    indices = nearest_codes(latents, codebook)
    assert indices.dtype == torch.int64
    assert not indices.requires_grad
    assert torch.equal(latents, kept[0])
    assert torch.equal(codebook, kept[1])


@pytest.mark.parametrize(
    ("latents", "codebook"), [((4, 1), (5, 3)), ((4, 3), (0, 3)), ((2, 4, 3), (5, 3)), ((3,), (5, 3))]
)
def test_shapes_that_do_not_fit_are_named(latents, codebook):
    with pytest.raises(InputError, match=r"\(N, D\) and \(K, D\)"):
        nearest_codes(torch.zeros(latents), torch.zeros(codebook))


class Watch(TorchDispatchMode):
    """Notes the largest storage that any operation hands back, and the operations that make the host wait."""

    def __init__(self):
        super().__init__()
        self.largest = 0
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self.largest = max(self.largest, leaf.untyped_storage().nbytes())
        if func.overloadpacket in (torch.ops.aten._local_scalar_dense, torch.ops.aten.nonzero):
            self.waits.append(str(func))
        return result


def test_nothing_of_size_tokens_times_codes_is_ever_made():
    latents, codebook = random_data(9000, 4, 9000)
    with Watch() as watch:
        nearest_codes(latents, codebook)
    tokens, codes = assignment._CPU_TILE
    assert watch.largest == tokens * codes * 4
    assert watch.largest <= 32 * 2**20 < 9000 * 9000 * 4


def test_the_search_never_makes_the_host_wait():
    latents, codebook = random_data(300, 4, 200)
    with Watch() as watch:
        latents.sum().item()
        assert watch.waits, "the watch must see a wait"
        watch.waits.clear()
        nearest_codes(latents, codebook)
    assert not watch.waits
