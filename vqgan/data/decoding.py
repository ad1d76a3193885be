"""From an image file of any mode to RGB bytes whose shorter side is the image size."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .source import Pixels


def read_image(path: Path, image_size: int) -> Pixels:
    """Decode one file, upright as its EXIF orientation says.

    A JPEG much larger than needed is decoded at a reduced scale, at least twice the image size, which is what its
    cosine transform gives for free.

    Returns:
        (3, height, width) uint8, the shorter side equal to `image_size`.

    Raises:
        Exception: whatever Pillow raises on a broken file, which is nearly anything.
    """
    with Image.open(path) as image:
        image.draft(None, (2 * image_size, 2 * image_size))
        ImageOps.exif_transpose(image, in_place=True)
        return resized(to_rgb(image), image_size)


def resized(image: Image.Image, image_size: int) -> Pixels:
    """The image with its shorter side brought to `image_size`, up or down: bicubic, antialiased, aspect ratio kept."""
    scale = image_size / min(image.size)
    width, height = (max(image_size, round(side * scale)) for side in image.size)
    return planes(image.resize((width, height), Image.Resampling.BICUBIC))


def planes(image: Image.Image) -> Pixels:
    """An RGB image as (3, height, width) uint8."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB: transparent pixels are laid on white, 16-bit grey is scaled down to 8 bits."""
    if image.mode.startswith("I"):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(grey: np.ndarray) -> Pixels:
    # Pillow's own conversion clips at 255, which turns nearly all of a 16-bit image white.
    return np.rint(grey.astype(np.float32) / 257).astype(np.uint8)
