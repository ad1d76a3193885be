import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity
from torch_fidelity import feature_extractor_inceptionv3 as inception
from torchvision import models

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.autoencoder.metrics import ImageMetrics, LabelMetrics, SampleDistance, metrics_for
from vqtool.vqgan.autoencoder.objective import LabelReconstruction
from vqtool.vqgan.autoencoder.perceptual import perceptual_loss
from vqtool.vqgan.autoencoder.settings import build_autoencoder_config

KEYS = ["l1", "l2", "psnr", "ssim", "lpips", "rfid"]
INCEPTION = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    """An empty torch hub cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    torch.manual_seed(0)
    folder = tmp_path / "hub" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def pairs(count, side=32):
    """Smooth images and noisy reconstructions, each pair with a noise of its own; some values lie beyond [-1, 1]."""
    images = torch.nn.functional.interpolate(torch.rand(count, 3, 4, 4) * 2 - 1, side, mode="bilinear")
    return images, images + torch.linspace(0.05, 0.5, count)[:, None, None, None] * torch.randn_like(images)


def measure(metrics, images, reconstructions, *, batches):
    for real, fake in zip(images.split(batches), reconstructions.split(batches), strict=True):
        metrics.update(real, fake)
    return metrics.compute()


def he_normal(module):
    for parameter in module.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=math.sqrt(2 / parameter[0].numel()))


def test_pixel_metrics_equal_numpy_and_scikit_image():
    images, reconstructions = pairs(5)
    values = measure(ImageMetrics("cpu"), images, reconstructions, batches=[5])
    real, fake = (np.clip((batch.numpy().astype(float) + 1) / 2, 0, 1) for batch in (images, reconstructions))
    errors = ((real - fake) ** 2).mean((1, 2, 3))
    assert values["l1"] == pytest.approx(np.abs(real - fake).mean(), rel=1e-5)
    assert values["l2"] == pytest.approx(errors.mean(), rel=1e-5)
    assert values["psnr"] == pytest.approx(np.mean(-10 * np.log10(errors)), rel=1e-5)
    settings = {"data_range": 1.0, "channel_axis": 0, "gaussian_weights": True, "use_sample_covariance": False}
    borders = ((0, 0), (0, 0), (5, 5), (5, 5))  # scikit-image leaves half a window out on each side
    padded = zip(np.pad(real, borders, mode="reflect"), np.pad(fake, borders, mode="reflect"), strict=True)
    ssim = [structural_similarity(r, f, sigma=1.5, **settings) for r, f in padded]
    assert values["ssim"] == pytest.approx(np.mean(ssim), rel=1e-4)


def test_l1_and_l2_are_on_the_unit_scale():
    images = torch.zeros(2, 3, 32, 32)
    values = measure(ImageMetrics("cpu"), images, images + 0.5, batches=[2])
    assert values["l1"] == pytest.approx(0.25)
    assert values["l2"] == pytest.approx(0.0625)
    assert values["psnr"] == pytest.approx(10 * math.log10(16))


def test_values_beyond_the_range_are_clamped():
    images = torch.ones(2, 3, 32, 32)
    images[:, :, 0] = -1
    values = measure(ImageMetrics("cpu"), images, 3 * images, batches=[2])
    assert values["l1"] == values["l2"] == 0.0
    assert values["ssim"] == pytest.approx(1.0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_results_do_not_depend_on_how_the_split_is_cut(tmp_path):
    net = models.squeezenet1_1()
    he_normal(net)
    torch.save(net.state_dict(), tmp_path / "s.pth")
    images, reconstructions = pairs(9)
    cuts = ([9], [4, 4, 1], [1] * 9)
    whole, parts, singles = (
        measure(ImageMetrics("cpu", "squeeze", tmp_path / "s.pth"), images, reconstructions, batches=cut)
        for cut in cuts
    )
    for name in ("l1", "l2", "psnr", "ssim", "lpips"):
        assert whole[name] is not None
        assert parts[name] == pytest.approx(whole[name], rel=1e-5), name
        assert singles[name] == pytest.approx(whole[name], rel=1e-5), name
    distances = perceptual_loss("squeeze", tmp_path / "s.pth")(images, reconstructions.clamp(-1, 1))
    assert whole["lpips"] == pytest.approx(distances.mean().item(), rel=1e-4)


def test_the_metrics_are_the_same_under_autocast():
    images, reconstructions = pairs(3)
    plain = measure(ImageMetrics("cpu"), images, reconstructions, batches=[3])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert measure(ImageMetrics("cpu"), images, reconstructions, batches=[3]) == plain


def test_missing_weights_are_none_with_a_reason_that_names_the_file(hub):
    metrics = ImageMetrics("cpu", "alex")
    values = measure(metrics, *pairs(2), batches=[2])
    assert list(values) == KEYS
    assert values["lpips"] is values["rfid"] is None
    assert sorted(metrics.missing) == ["lpips", "rfid"]
    assert str(hub / "alexnet-owt-7be5be79.pth") in metrics.missing["lpips"]
    assert str(hub / INCEPTION) in metrics.missing["rfid"]
    assert not any("\n" in line for line in metrics.missing.values())


def test_an_infinite_psnr_is_none_with_its_reason():
    images, reconstructions = pairs(2)
    reconstructions[0] = images[0]
    metrics = ImageMetrics("cpu")
    assert measure(metrics, images, reconstructions, batches=[2])["psnr"] is None
    assert metrics.missing["psnr"] == "psnr is inf over these images"


def test_a_reconstruction_that_is_not_a_number_is_not_left_out_of_the_mean():
    images, reconstructions = pairs(3)
    reconstructions[1, 0, 0, 0] = float("nan")
    metrics = ImageMetrics("cpu")
    assert measure(metrics, images, reconstructions, batches=[3])["l1"] is None
    assert metrics.missing["l1"] == "l1 is nan over these images"


RANK = """
import sys, torch
from vqtool.vqgan.autoencoder.metrics import ImageMetrics
rank, store, data = int(sys.argv[1]), sys.argv[2], torch.load(sys.argv[3])
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
metrics = ImageMetrics("cpu")
metrics.update(*(batch.split([3, 1])[rank] for batch in data))
print([metrics.compute()[name] for name in ("l1", "l2", "psnr", "ssim")])
"""


@pytest.mark.slow
def test_every_rank_of_a_process_group_gives_the_figures_of_the_whole_split(tmp_path):
    data = pairs(4)
    torch.save(data, tmp_path / "data.pt")
    command = [sys.executable, "-c", RANK]
    files = [str(tmp_path / "store"), str(tmp_path / "data.pt")]
    ranks = [subprocess.Popen([*command, str(rank), *files], stdout=subprocess.PIPE, text=True) for rank in (0, 1)]
    whole = measure(ImageMetrics("cpu"), *data, batches=[4])
    expected = [whole[name] for name in ("l1", "l2", "psnr", "ssim")]
    for rank in ranks:
        assert json.loads(rank.communicate(timeout=120)[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("metrics", [ImageMetrics, lambda device: LabelMetrics(device, 3)])
def test_wrong_input_is_refused(metrics):
    with pytest.raises(InputError, match="the split is empty"):
        metrics("cpu").compute()
    with pytest.raises(InputError, match=r"images \(2, 3, 32, 32\) and reconstructions \(1, 3, 32, 32\) differ"):
        metrics("cpu").update(torch.zeros(2, 3, 32, 32), torch.zeros(1, 3, 32, 32))


def test_the_view_decides_which_metrics_a_run_has():
    assert isinstance(metrics_for(build_autoencoder_config({}), "cpu"), ImageMetrics)
    labels = metrics_for(build_autoencoder_config({"data": {"view": "segmentation:5"}}), "cpu")
    assert isinstance(labels, LabelMetrics)
    assert list(measure(labels, *labelled(2, 5), batches=[2])) == ["pixel_accuracy", "mean_iou", "bce"]


def test_the_backbone_of_the_loss_is_that_of_the_metric(hub):
    for perceptual, file in (("squeeze", "squeezenet1_1"), ("none", "vgg16")):
        metrics = metrics_for(build_autoencoder_config({"loss": {"perceptual": perceptual}}), "cpu")
        assert file in metrics.missing["lpips"]


# ---- labels


def labelled(count, labels, side=16):
    """One-hot maps, and logits that are often right, each map with a noise of its own."""
    ids = torch.randint(0, labels, (count, side, side))
    maps = torch.nn.functional.one_hot(ids, labels).permute(0, 3, 1, 2).float()
    return maps, 3 * maps + torch.linspace(0.5, 2, count)[:, None, None, None] * torch.randn_like(maps)


def test_label_metrics_equal_a_count_over_all_pixels():
    maps, logits = labelled(5, 6)
    values = measure(LabelMetrics("cpu", 6), maps, logits, batches=[5])
    real, fake = maps.argmax(1).flatten().tolist(), logits.argmax(1).flatten().tolist()
    pixels = list(zip(real, fake, strict=True))
    overlaps = []
    for label in range(6):
        both = sum(r == label and f == label for r, f in pixels)
        overlaps.append(both / sum(r == label or f == label for r, f in pixels))
    assert values["pixel_accuracy"] == pytest.approx(sum(r == f for r, f in pixels) / len(pixels))
    assert values["mean_iou"] == pytest.approx(sum(overlaps) / 6)
    assert values["bce"] == pytest.approx(LabelReconstruction()(maps, logits)[0].item(), rel=1e-5)


def test_label_metrics_do_not_depend_on_how_the_split_is_cut():
    maps, logits = labelled(5, 6)
    whole, parts = (measure(LabelMetrics("cpu", 6), maps, logits, batches=cut) for cut in ([5], [2, 2, 1]))
    assert parts == pytest.approx(whole, rel=1e-5)


def test_labels_that_do_not_occur_do_not_count_and_made_up_ones_count_nothing():
    maps = torch.zeros(1, 9, 4, 4)
    maps[:, 2, :2] = maps[:, 5, 2:] = 1
    assert measure(LabelMetrics("cpu", 9), maps, maps, batches=[1])["mean_iou"] == 1
    logits = maps.clone()
    logits[:, 7, 0] = 2  # a quarter of the pixels, half of those of label 2
    values = measure(LabelMetrics("cpu", 9), maps, logits, batches=[1])
    assert values["mean_iou"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert values["pixel_accuracy"] == 0.75


def test_logits_that_are_no_numbers_are_told():
    maps, logits = labelled(2, 3)
    logits[0, 0, 0, 0] = float("nan")
    metrics = LabelMetrics("cpu", 3)
    assert measure(metrics, maps, logits, batches=[2])["bce"] is None
    assert metrics.missing == {"bce": "bce is nan over these images"}


# ---- rFID


@pytest.fixture
def random_inception(hub, monkeypatch):
    """A file of random weights in the layout, and at the place, of torch-fidelity's Inception."""
    with monkeypatch.context() as context:
        context.setattr(inception, "load_state_dict_from_url", lambda *_, **__: {})
        context.setattr(inception.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        net = inception.FeatureExtractorInceptionV3("random", ["2048"])
    he_normal(net)
    torch.save(net.state_dict(), hub / INCEPTION)
    return net


def frechet_distance(x, y):
    """Between features (N, 2048) of few images: tr sqrt(S T) is the nuclear norm of the centred X Y^T / (N - 1)."""
    x, y = x.double(), y.double()
    a, b = x - x.mean(0), y - y.mean(0)
    shift = (x.mean(0) - y.mean(0)).square().sum()
    cross = torch.linalg.svdvals(a @ b.T).sum()
    return (shift + (a.square().sum() + b.square().sum() - 2 * cross) / (len(x) - 1)).item()


@pytest.mark.slow
def test_rfid_is_the_frechet_distance_of_torch_fidelity_features(random_inception):
    images, reconstructions = pairs(6, side=48)
    metrics = ImageMetrics("cpu")
    assert list(metrics.missing) == ["lpips"]
    value = measure(metrics, images, reconstructions, batches=[4, 2])["rfid"]
    real, fake = (
        random_inception(((batch + 1) * 127.5).clamp(0, 255).round().byte())[0] for batch in (images, reconstructions)
    )
    assert value == pytest.approx(frechet_distance(real, fake), rel=1e-3)
    assert value > 0


@pytest.mark.slow
def test_rfid_of_one_image_is_none_with_its_reason(random_inception):
    metrics = ImageMetrics("cpu")
    assert measure(metrics, *pairs(1), batches=[1])["rfid"] is None
    assert "More than one sample" in metrics.missing["rfid"]


@pytest.mark.slow
def test_the_distance_of_samples_without_samples_is_none_with_its_reason(random_inception):
    distance = SampleDistance("cpu")
    distance.update_real(pairs(2)[0])
    assert distance.compute() == {"fid": None}
    assert "More than one sample" in distance.missing["fid"]


def test_the_distance_of_samples_without_weights_is_none_with_the_file_that_is_missing(hub):
    distance = SampleDistance("cpu")
    distance.update_real(pairs(2)[0])
    distance.update_samples(pairs(2)[1])
    assert distance.compute() == {"fid": None}
    assert str(hub / INCEPTION) in distance.missing["fid"]


def test_an_inception_file_of_another_layout_is_refused_in_one_line(hub):
    torch.save({"fc.weight": torch.zeros(2, 2)}, hub / INCEPTION)
    with pytest.raises(InputError, match=r"\.pth does not hold the Inception weights of torch-fidelity$"):
        ImageMetrics("cpu")


class Payload:
    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_an_inception_file_with_code_in_it_is_refused_and_the_code_is_not_run(hub, capsys):
    torch.save({"fc.weight": Payload()}, hub / INCEPTION)
    with pytest.raises(InputError, match="not a whole file of PyTorch weights"):
        ImageMetrics("cpu")
    assert capsys.readouterr().out == ""
