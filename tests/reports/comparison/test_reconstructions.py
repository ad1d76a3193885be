from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imsave
from synthetic import write_run
from torchvision.utils import make_grid, save_image

from vqtool.diagnostics.run import RunDirectory
from vqtool.reports import write_report
from vqtool.reports.comparison import reconstructions as module
from vqtool.reports.page.facts import RunFacts

Groups = dict[str, list[RunFacts]]


def write_picture(run: Path, originals: torch.Tensor, made: torch.Tensor, step: int = 60) -> None:
    """As a run keeps it."""
    (run / "samples").mkdir(parents=True, exist_ok=True)
    grid = make_grid(torch.cat([originals, made]), nrow=len(originals))
    save_image(grid, run / "samples" / f"reconstructions-{step:07d}.png")


def plain(value: float, size: int = 6, images: int = 3) -> torch.Tensor:
    return torch.full((images, 3, size, size), value)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two runs of two quantizers that show the same images."""
    for name, value in (("a", 0.2), ("b", 0.4)):
        write_picture(tmp_path / name, plain(1.0), plain(value))
    return tmp_path


def groups(folder: Path, *names: str) -> Groups:
    """One run each, by the name of its quantizer."""
    return {name.upper(): [RunFacts(RunDirectory(folder / name))] for name in names}


def lines(made: Groups, folder: Path) -> tuple[list[str], list[str]]:
    """The names of the rows that were drawn, and what is said of the others."""
    drawn: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        draw = module.images.named_rows
        patch.setattr(module.images, "named_rows", lambda image, names: drawn.append(names) or draw(image, names))
        section = module.reconstructions(made, folder / "report")
    assert len(section.pictures) == len(drawn) <= 1
    return [name for names in drawn for name in names], section.missing


def test_the_grid_has_the_originals_and_then_a_row_per_run(folder):
    halves = [module.newest_halves(fact) for (fact,) in groups(folder, "a", "b").values()]
    grid = module.stacked([one for one in halves if one])
    expected = make_grid(torch.cat([plain(1.0), plain(0.2), plain(0.4)]), nrow=3).permute(1, 2, 0).numpy()
    assert grid.shape == expected.shape
    np.testing.assert_allclose(grid, expected, atol=0.5 / 255 + 1e-6)


def test_every_quantizer_has_its_name_at_its_row(folder):
    assert lines(groups(folder, "b", "a"), folder) == (["original", "B", "A"], [])


def test_the_caption_has_the_step_once_where_it_is_one(folder):
    (picture,) = module.reconstructions(groups(folder, "a", "b"), folder / "report").pictures
    assert "make of them: a, b, at step 60." in picture.caption
    write_picture(folder / "b", plain(1.0), plain(0.5), step=1090)
    (picture,) = module.reconstructions(groups(folder, "a", "b"), folder / "report").pictures
    assert "make of them: a at step 60, b at step 1,090." in picture.caption


@pytest.mark.parametrize("other", [plain(0.9), plain(1.0, size=8), plain(1.0, images=2)])
def test_a_run_with_other_originals_is_left_out_in_one_line(folder, other):
    write_picture(folder / "c", other, other)
    names, missing = lines(groups(folder, "a", "c", "b"), folder)
    assert names == ["original", "A", "B"]
    assert missing == ["C is left out: the originals of c are other images, or of another size, than those of a."]


def test_originals_that_differ_by_rounding_are_the_same(folder):
    write_picture(folder / "c", plain(1.0 - 1 / 255), plain(0.1))
    assert lines(groups(folder, "a", "c"), folder) == (["original", "A", "C"], [])


def test_a_run_without_a_picture_gives_way_to_the_next_seed_or_is_left_out(folder):
    made = groups(folder, "a", "none")
    names, missing = lines(made, folder)
    assert names == ["original", "A"]
    assert missing == ["NONE is left out: it has no reconstructions in samples/ yet."]
    made["NONE"] += groups(folder, "b")["B"]
    assert lines(made, folder) == (["original", "A", "NONE"], [])


def test_runs_without_any_picture_say_so_in_one_line(tmp_path):
    names, missing = lines(groups(tmp_path, "a", "b"), tmp_path)
    assert (names, len(missing)) == ([], 1)
    assert "No reconstructions yet" in missing[0]


def test_a_picture_of_one_pixel_is_none(folder):
    (folder / "c" / "samples").mkdir(parents=True)
    imsave(folder / "c" / "samples" / "reconstructions-1.png", np.zeros((1, 1, 3)))
    assert lines(groups(folder, "c", "a"), folder)[0] == ["original", "A"]


def test_the_page_of_a_comparison_shows_them(tmp_path):
    for spec in ("standard", "gumbel:kl_weight=0.01"):
        write_run(tmp_path / spec.replace(":", ","), spec, K=16, T=2)
    text = write_report(tmp_path).read_text()
    assert "make of them: gumbel,kl_weight=0.01, standard, at step 20." in text
    assert (tmp_path / "report" / "figures" / "reconstructions.png").is_file()
