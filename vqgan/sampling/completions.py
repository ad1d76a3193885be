"""What there is to see of a second stage: images drawn, completed, and beside their condition."""

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ..transformer.model import CodeTransformer
from ..transformer.split import CodeSplit
from ..transformer.tokenizer import Tokenizer
from .drawing import Choice, draw_codes
from .panels import panel


def completions(
    tokenizer: Tokenizer, model: CodeTransformer, split: CodeSplit, rows: NDArray[np.int64], choice: Choice
) -> Image.Image:
    """Originals, reconstructions, and what the model makes of the first half of their codes and of none.

    The panel of taming-transformers' ``log_images``; a condition that is a picture stands between the first two rows.
    """
    crops, _ = tokenizer.sees(split.images).batch(rows)
    prefix, codes = (part.to(tokenizer.device) for part in split.batch(rows))
    half = model.sequence(codes)[:, : model.grid[0] * model.grid[1] // 2]
    lines = {
        "original": tokenizer.picture(crops),
        "reconstruction": tokenizer.decode(codes),
        "first half given": tokenizer.decode(draw_codes(model, prefix, choice, half)),
        "nothing given": tokenizer.decode(draw_codes(model, prefix, choice)),
    }
    if (seen := split.condition.pictures(split.images, rows)) is not None:
        lines = {"original": lines.pop("original"), "condition": seen, **lines}
    columns = split.condition.captions(split.images, rows)
    return panel(torch.stack([line.cpu() for line in lines.values()]), rows=list(lines), columns=columns)
