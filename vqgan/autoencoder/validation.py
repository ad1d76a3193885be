"""A look at the validation split while the run goes on."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.utils import make_grid

from ...diagnostics import stats
from ..data import Images
from ..data.batches import spread
from ..data.images import to_unit_range
from ..data.views import View
from .evaluation import reconstruct
from .model import VQModel

#: Images that are shown beside their reconstructions.
SHOWN = 8


class Validation(NamedTuple):
    """What a validation saw.

    Attributes:
        values: Figures by name, each a mean or a count over the images looked at.
        grid: (3, height, width) in [0, 1]: a row of images above a row of their reconstructions.
    """

    values: dict[str, float]
    grid: Tensor


@torch.no_grad()
def validate(
    model: VQModel, view: View, reconstruction: nn.Module, images: Images, most: int, batch_size: int
) -> Validation:
    """Reconstruction losses, on the scale of training, and codes used over at most ``most`` images, evenly spread.

    Codes used and perplexity depend on how many tokens they were counted over, so their names carry it, and what even
    use would show stands beside them.
    """
    count = min(most, len(images))
    sums: dict[str, float] = {}
    hits = torch.zeros(model.quantize.codebook_size, dtype=torch.int64)
    for batch, reconstructions, indices in reconstruct(model, view, images, spread(count, len(images)), batch_size):
        nll, parts = reconstruction(batch, reconstructions)
        for name, value in {"nll": nll, **parts}.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
        hits += torch.bincount(indices.flatten().cpu(), minlength=len(hits))
    over = "split" if count == len(images) else f"in_{count}_images"
    values = {f"validation/{name}": total / count for name, total in sums.items()}
    values["validation/images"] = count
    values[f"validation/codes_used_{over}"] = float(stats.codes_used(hits.numpy()))
    values[f"validation/codes_used_{over}_ceiling"] = stats.expected_codes_used(len(hits), int(hits.sum()))
    values[f"validation/perplexity_{over}"] = float(stats.perplexity(hits.numpy()))
    return Validation(values, _grid(model, view, images, batch_size))


def _grid(model: VQModel, view: View, images: Images, batch_size: int) -> Tensor:
    chosen = spread(min(SHOWN, len(images)), len(images))
    batches = [(batch, made) for batch, made, _ in reconstruct(model, view, images, chosen, batch_size)]
    rows = [torch.cat(row) for row in zip(*batches, strict=True)]
    return make_grid(to_unit_range(view.picture(torch.cat(rows))), nrow=len(chosen)).cpu()
