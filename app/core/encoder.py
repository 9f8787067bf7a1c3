"""The image encoder that apps share: EfficientNet-Lite trained on ImageNet, run by onnxruntime on one thread.

    encoder = open_encoder("lite0")                      # the manifest says assets: [encoder-lite0]
    seen = encoder.encode([image, other])                # PIL images of any size and mode RGB
    seen.embeddings                                      # (2, 1280) float32
    seen.features                                        # (2, 7, 7, 1280) float32: the embedding is their mean
    seen.probabilities                                   # (2, 1000) float32: ImageNet's classes

An image is scaled as a whole into a square (see `square`); scaling to the network's numbers is part of the model. One image at a
time: a batch gains nothing on one processor, answers do not depend on their neighbours, and memory stays bounded.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from app.core import assets

Variant = Literal["lite0", "lite1", "lite2"]
Floats = npt.NDArray[np.float32]
Colour = tuple[int, int, int]

EMBEDDING: Final = 1280
CLASSES: Final = 1000
SIDES: Final = {"lite0": 224, "lite1": 240, "lite2": 260}
"""Side of the square each network looks at, in pixels."""
GRIDS: Final = {"lite0": 7, "lite1": 8, "lite2": 9}
"""Cells a side of each network's last map."""


@dataclass(frozen=True)
class Seen:
    """What the encoder makes of n images.

    Attributes:
        embeddings: (n, 1280), never negative.
        features: (n, g, g, 1280), rows from the top, columns from the left; their mean over the cells is the embedding.
        probabilities: (n, 1000), ImageNet's classes in their usual order; a row sums to 1.
    """

    embeddings: Floats
    features: Floats
    probabilities: Floats

    def __len__(self) -> int:
        """Number of images."""
        return len(self.embeddings)


class Encoder:
    """One network in memory. Threads may share it; they take turns."""

    def __init__(self, variant: Variant) -> None:
        import onnxruntime  # noqa: PLC0415 - 50 MB that only a process with an encoder needs

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        self.variant = variant
        self.side: int = SIDES[variant]
        self.grid: int = GRIDS[variant]
        self.sha256: str = assets.recipe(f"encoder-{variant}").sha256
        path = assets.locate(f"encoder-{variant}")
        self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._turn = threading.Lock()

    def encode(self, images: Sequence[Image.Image], *, fill: Colour | None = None) -> Seen:
        """Look at images; `fill` is the colour beside one that is no square (see `square`)."""
        return self.encode_squares([square(image, self.side, fill=fill) for image in images])

    def encode_squares(self, squares: Sequence[npt.NDArray[np.uint8]]) -> Seen:
        """The same for arrays `(side, side, 3)` of bytes."""
        seen = Seen(
            np.empty((len(squares), EMBEDDING), np.float32),
            np.empty((len(squares), self.grid, self.grid, EMBEDDING), np.float32),
            np.empty((len(squares), CLASSES), np.float32),
        )
        for place, pixels in enumerate(squares):
            with self._turn:
                embedding, logits, features = self._session.run(
                    ["embedding", "logits", "features"], {"image": np.ascontiguousarray(pixels)[None]}
                )
            seen.embeddings[place] = embedding[0]
            seen.features[place] = features[0].transpose(1, 2, 0)
            seen.probabilities[place] = _softmax(logits[0])
        return seen


def square(image: Image.Image, side: int, *, fill: Colour | None = None) -> npt.NDArray[np.uint8]:
    """The whole image in a square of bytes `(side, side, 3)`: longest side to fit, centred, never cut, never stretched.

    What is left beside it has the colour `fill`, else the mean colour of the image's own border. Scaled with an antialiased
    bicubic filter.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    scale = side / max(rgb.size)
    width, height = (max(1, round(length * scale)) for length in rgb.size)
    scaled = np.asarray(rgb.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0))
    if width == height:
        return scaled
    if fill is None:
        border = np.concatenate([scaled[0], scaled[-1], scaled[:, 0], scaled[:, -1]])
        fill = tuple(border.mean(axis=0).round().astype(int))
    canvas = np.empty((side, side, 3), np.uint8)
    canvas[:] = fill
    left, top = (side - width) // 2, (side - height) // 2
    canvas[top : top + height, left : left + width] = scaled
    return canvas


def place(image_size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Where an image of this (width, height) lies in its square: left, top, right, bottom as shares of the square's side.

    For a map over the square's cells that shall lie over the image again.
    """
    longest = max(image_size)
    width, height = image_size[0] / longest, image_size[1] / longest
    return (1 - width) / 2, (1 - height) / 2, (1 + width) / 2, (1 + height) / 2


def _softmax(logits: Floats) -> Floats:
    shifted = np.exp(logits - logits.max())
    return np.asarray(shifted / shifted.sum(), dtype=np.float32)


@lru_cache(maxsize=3)
def open_encoder(variant: Variant = "lite0") -> Encoder:
    """The process's encoder, loaded once. Raises app.core.assets.AssetError."""
    return Encoder(variant)
