"""The heat map: which part of a dish made it dirty, laid over the picture."""

import base64
import io
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.core.encoder import place

LONGEST: Final = 480
"""Pixels of the overlay's longer side."""

_LEAST: Final = 0.12
"""Log-odds of a cell that are shown in full strength, at least: a clean dish stays cool."""
_COLOURS: Final = np.array([(255, 214, 74), (255, 128, 20), (214, 20, 50)], np.float32)


@dataclass(frozen=True)
class Heat:
    """A map over the picture itself.

    Attributes:
        strength: (height, width) of the overlay, 0 to 1.
        image: The picture with the map on it.
        place: Where the hottest part is, in words.
    """

    strength: npt.NDArray[np.float32]
    image: Image.Image
    place: str


def lay_over(image: Image.Image, cells: npt.NDArray[np.float32]) -> Heat:
    """Lay the cells' evidence (g, g), over the picture's square, on the picture."""
    picture = image.copy()
    picture.thumbnail((LONGEST, LONGEST))
    strength = _over_picture(cells, picture.size)
    colours = _coloured(strength)
    alpha = (strength**0.8 * 0.72)[..., None]
    base = np.asarray(picture, np.float32)
    mixed = base * (1 - alpha) + colours * alpha
    row, column = np.unravel_index(int(strength.argmax()), strength.shape)
    return Heat(
        strength,
        Image.fromarray(mixed.clip(0, 255).astype(np.uint8)),
        _named(row / strength.shape[0], column / strength.shape[1]),
    )


def data_url(image: Image.Image) -> str:
    """A picture as text that a page can show."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _over_picture(cells: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    warm = np.clip(cells, 0, None)
    scaled = (warm / max(float(warm.max()), _LEAST)).astype(np.float32)
    left, top, right, bottom = (share * len(cells) for share in place(size))
    smooth = Image.fromarray(scaled, "F").resize(size, Image.Resampling.BICUBIC, box=(left, top, right, bottom))
    return np.asarray(np.clip(np.asarray(smooth), 0, 1), np.float32)


def _coloured(strength: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    scaled = strength * (len(_COLOURS) - 1)
    low = np.minimum(scaled.astype(int), len(_COLOURS) - 2)
    share = (scaled - low)[..., None]
    return np.asarray(_COLOURS[low] * (1 - share) + _COLOURS[low + 1] * share, np.float32)


def _named(down: float, across: float) -> str:
    rows, columns = ("upper", "middle", "lower"), ("left", "middle", "right")
    row, column = rows[min(2, int(down * 3))], columns[min(2, int(across * 3))]
    if (row, column) == ("middle", "middle"):
        return "in the middle"
    if row == "middle":
        return f"on the {column}"
    if column == "middle":
        return f"in the {row} part"
    return f"on the {row} {column}"
