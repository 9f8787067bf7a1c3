"""What is done with pixels: how much of the paper is marked, a small copy, a heat map laid over a drawing."""

import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.core.encoder import place

_LOOK: Final = 160
_MARK: Final = 28.0
_OVERLAY: Final = 640
# from nothing through yellow to red: (share, red, green, blue, opacity)
_HEAT: Final = np.array(
    [[0.0, 255, 214, 90, 0], [0.25, 255, 206, 70, 40], [0.55, 250, 140, 40, 135], [1.0, 200, 20, 40, 205]],
    dtype=np.float64,
)

Doubles = npt.NDArray[np.float64]


def ink(image: Image.Image) -> float:
    """Share of the paper (0 to 1) that differs clearly from the paper's own colour."""
    small = image.convert("RGB")
    small.thumbnail((_LOOK, _LOOK), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.float64)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    paper = np.median(border, axis=0)
    return float((np.abs(pixels - paper).max(axis=2) > _MARK).mean())


def png(image: Image.Image) -> bytes:
    """The image as a PNG."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=4)
    return out.getvalue()


def thumbnail(image: Image.Image, side: int = 256) -> Image.Image:
    """A copy whose longest side is at most `side`."""
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return small


def over_image(cells: Doubles, size: tuple[int, int]) -> Doubles:
    """Importance (height, width), 0 to 1, over an image of `size` from the cells of its square."""
    positive = np.clip(cells, 0, None)
    top = float(positive.max())
    if top <= 0:
        return np.zeros((size[1], size[0]))
    left, upper, right, lower = place(size)
    side = max(size)
    # a cell's middle is where its value holds; bicubic between them, then cut to where the image lies in its square
    whole = Image.fromarray((positive / top).astype(np.float32), mode="F").resize(
        (side, side), Image.Resampling.BICUBIC
    )
    box = (round(left * side), round(upper * side), round(left * side) + size[0], round(upper * side) + size[1])
    del right, lower
    return np.clip(np.asarray(whole.crop(box), dtype=np.float64), 0, 1)


def heat(cells: Doubles, size: tuple[int, int]) -> Image.Image:
    """The heat map alone, transparent where nothing matters."""
    share = over_image(cells, size)
    channels = [np.interp(share, _HEAT[:, 0], _HEAT[:, column]) for column in range(1, 5)]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8), "RGBA")


def overlay(image: Image.Image, cells: Doubles) -> Image.Image:
    """The drawing, a little paled, with the heat map on it; at most 640 pixels a side."""
    small = thumbnail(image.convert("RGB"), _OVERLAY)
    pale = Image.blend(small, Image.new("RGB", small.size, "white"), 0.25).convert("RGBA")
    pale.alpha_composite(heat(cells, small.size))
    return pale.convert("RGB")


def regions(cells: Doubles, size: tuple[int, int], most: int = 5) -> list[dict[str, object]]:
    """The parts of the drawing that raise the score: connected cells well above the average, with boxes in the image's pixels.

    `importance_score` is the region's share (0 to 1) of all that raises the score; boxes are left, top, width, height.
    """
    positive = np.clip(cells, 0, None)
    total = float(positive.sum())
    if total <= 0:
        return []
    loud = positive > max(float(positive.mean() + 0.6 * positive.std()), 1e-12)
    found = [(float(positive[mask].sum()) / total, mask) for mask in _connected(loud)]
    found.sort(key=lambda item: -item[0])
    left, upper, _, _ = place(size)
    side, grid = max(size), cells.shape[0]
    told: list[dict[str, object]] = []
    for share, mask in found:
        rows, columns = np.nonzero(mask)
        x0 = np.clip(columns.min() / grid * side - left * side, 0, size[0])
        y0 = np.clip(rows.min() / grid * side - upper * side, 0, size[1])
        x1 = np.clip((columns.max() + 1) / grid * side - left * side, 0, size[0])
        y1 = np.clip((rows.max() + 1) / grid * side - upper * side, 0, size[1])
        if x1 - x0 < 1 or y1 - y0 < 1:
            continue  # beside the drawing
        told.append(
            {
                "region_id": f"region_{len(told) + 1}",
                "bounding_box": [round(float(v)) for v in (x0, y0, x1 - x0, y1 - y0)],
                "importance_score": round(share, 4),
                "spatial_location": location((x0 + x1) / 2 / size[0], (y0 + y1) / 2 / size[1]),
            }
        )
        if len(told) == most:
            break
    return told


def location(x: float, y: float) -> str:
    """A place in words, from shares of width and height: top left, center, bottom right."""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else "center"
    row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else "center"
    return "center" if row == column else f"{row} {column}"


def _connected(loud: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.bool_]]:
    seen = np.zeros_like(loud)
    found = []
    for start in zip(*np.nonzero(loud), strict=True):
        if seen[start]:
            continue
        mask, ahead = np.zeros_like(loud), [start]
        while ahead:
            row, column = ahead.pop()
            if (
                not (0 <= row < loud.shape[0] and 0 <= column < loud.shape[1])
                or seen[row, column]
                or not loud[row, column]
            ):
                continue
            seen[row, column] = mask[row, column] = True
            ahead += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        found.append(mask)
    return found
