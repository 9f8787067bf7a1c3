"""The three model types and what decides in each: a head of 1280 weights on the encoder's embedding.

A head is linear, so its evidence is the sum over the cells of the encoder's map: which part of the picture made a dish dirty needs no
second look, and the heat map adds up to the answer. Its file is an npz of plain arrays with a JSON description, never a pickle.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from app.core.encoder import CLASSES, EMBEDDING, GRIDS, Encoder, Variant, open_encoder, square

ModelType = Literal["fast", "balanced", "accurate"]
Label = Literal["clean", "dirty"]
Floats = npt.NDArray[np.float32]

MODEL_TYPES: Final[tuple[ModelType, ...]] = get_args(ModelType)
DEFAULT: Final[ModelType] = "balanced"
LABELS: Final[tuple[Label, ...]] = get_args(Label)
NOT_A_DISH: Final = "not_a_dish"

_KIND: Final = "vision-head/1"
_ARRAYS: Final = ("weights", "usual", "familiar", "probes", "expected")
_LARGEST: Final = 4 * 1024 * 1024


class ModelError(ValueError):
    """A file is no head of ours, or the head gives wrong answers; the message says what was found."""


@dataclass(frozen=True)
class Traits:
    """What a model type is made of, and what to say of it; the second look is at the mirrored picture."""

    variant: Variant
    looks: int
    file_mb: float
    speed: str
    memory: str


TRAITS: Final[Mapping[ModelType, Traits]] = {
    "fast": Traits("lite0", 1, 9.37, "about 10 ms a picture on one core", "about 45 MB"),
    "balanced": Traits("lite1", 1, 10.92, "about 16 ms a picture on one core", "about 55 MB"),
    "accurate": Traits(
        "lite2", 2, 12.27, "about 45 ms a picture on one core: looked at twice, once mirrored", "about 65 MB"
    ),
}


@dataclass(frozen=True)
class Evidence:
    """What the encoder saw in one picture.

    Attributes:
        embedding: (1280,).
        cells: (g, g, 1280), their mean is the embedding.
        classes: (1000,) probabilities of ImageNet's classes.
    """

    embedding: Floats
    cells: Floats
    classes: Floats


@dataclass(frozen=True)
class Verdict:
    """The answer for one picture.

    Attributes:
        label: clean or dirty.
        dirty: Calibrated probability of dirty.
        uncertain: Whether the confidence is so low that a person should look.
        warning: `not_a_dish`, or None.
        looks_like: Number of the ImageNet class that the picture resembles most.
        cells: (g, g) what each part added to the log-odds of dirty, against the same part of an average clean picture.
    """

    label: Label
    dirty: float
    uncertain: bool
    warning: str | None
    looks_like: int
    cells: Floats

    @property
    def confidence(self) -> float:
        """Probability of the label."""
        return self.dirty if self.label == "dirty" else 1 - self.dirty


@dataclass(frozen=True)
class Head:
    """What was learnt for one encoder.

    Attributes:
        model_type: fast, balanced or accurate.
        encoder_sha256: The encoder it was trained on; it understands no other.
        weights: (1280,).
        bias: Added to the sum.
        slope, offset: Calibration: log-odds of dirty = slope * sum + offset.
        band: Below this confidence an answer is uncertain.
        usual: (g, g) the sum's parts in an average clean picture.
        familiar: (1000,) how much more often dishes are taken for a class of ImageNet than chance would have it, as a logarithm.
        least: A picture whose mean of these, by its probabilities, is less than this is no dish.
        probes: (k, 1280) some embeddings, and
        expected: (k,) the calibrated probabilities of dirty they must get.
    """

    model_type: ModelType
    encoder_sha256: str
    weights: Floats
    bias: float
    slope: float
    offset: float
    band: float
    usual: Floats
    familiar: Floats
    least: float
    probes: Floats
    expected: Floats

    def dirty(self, embeddings: Floats) -> npt.NDArray[np.float64]:
        """Calibrated probabilities of dirty (n,) for embeddings (n, 1280)."""
        sums = embeddings.astype(np.float64) @ self.weights.astype(np.float64) + self.bias
        return sigmoid(self.slope * sums + self.offset)

    def decide(self, seen: Evidence) -> Verdict:
        """The answer for one picture."""
        dirty = float(self.dirty(seen.embedding[None])[0])
        label: Label = "dirty" if dirty >= 0.5 else "clean"
        parts = seen.cells @ self.weights / self.usual.size - self.usual
        strange = float(seen.classes @ self.familiar) < self.least
        return Verdict(
            label=label,
            dirty=dirty,
            uncertain=max(dirty, 1 - dirty) < self.band,
            warning=NOT_A_DISH if strange else None,
            looks_like=int(seen.classes.argmax()),
            cells=(self.slope * parts).astype(np.float32),
        )

    def check(self) -> None:
        """Answer the probes. Raises ModelError when an answer is wrong."""
        found = self.dirty(self.probes)
        if not np.allclose(found, self.expected, atol=1e-4):
            raise ModelError("its answers to the test embeddings are wrong")

    def to_bytes(self) -> bytes:
        """The head's file: equal heads give equal bytes."""
        about = {
            "kind": _KIND,
            "model_type": self.model_type,
            "encoder_sha256": self.encoder_sha256,
            **{name: getattr(self, name) for name in _NUMBERS},
        }
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in _ARRAYS:
                content = io.BytesIO()
                np.save(content, getattr(self, name), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED)
            archive.writestr(zipfile.ZipInfo("about.json"), json.dumps(about, sort_keys=True, indent=1))
        return stream.getvalue()


_NUMBERS: Final = ("bias", "slope", "offset", "band", "least")


def from_bytes(data: bytes, model_type: ModelType, encoder_sha256: str) -> Head:
    """Read a head and try it. Raises ModelError when it is torn, foreign, of another type or for another encoder."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _LARGEST:
                raise ModelError("it is too large to be a head")
            about = json.loads(archive.read("about.json"))
            arrays = {
                name: np.load(io.BytesIO(archive.read(f"{name}.npy")), allow_pickle=False).astype(np.float32)
                for name in _ARRAYS
            }
        if about["kind"] != _KIND or about["model_type"] != model_type:
            raise ModelError(f"it is a {about['kind']} for {about['model_type']}")
        if about["encoder_sha256"] != encoder_sha256:
            raise ModelError("it was trained on another encoder; train it again")
        numbers = {name: float(about[name]) for name in _NUMBERS}
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, TypeError, EOFError, OSError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"it is torn or foreign: {type(error).__name__}: {error}") from error
    cells = GRIDS[TRAITS[model_type].variant]
    count = len(arrays["expected"])
    shapes = {
        "weights": (EMBEDDING,),
        "usual": (cells, cells),
        "familiar": (CLASSES,),
        "probes": (count, EMBEDDING),
        "expected": (count,),
    }
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise ModelError(f"{name} is not {shape} finite numbers")
    if not np.isfinite(list(numbers.values())).all() or not count:
        raise ModelError("its numbers are not finite, or it has no test embeddings")
    head = Head(**{"model_type": model_type, "encoder_sha256": encoder_sha256, **arrays, **numbers})
    head.check()
    return head


def look(image: Image.Image, model_type: ModelType) -> Evidence:
    """Show a picture to the encoder of a model type."""
    encoder = encoder_of(model_type)
    pixels = square(image, encoder.side)
    return look_at_square(pixels, encoder, looks=TRAITS[model_type].looks)


def look_at_square(pixels: npt.NDArray[np.uint8], encoder: Encoder, *, looks: int) -> Evidence:
    """The same for pixels `(side, side, 3)`; the mean of one or two looks."""
    views = [pixels, pixels[:, ::-1]][:looks]
    seen = encoder.encode_squares(views)
    cells = seen.features[0]
    if looks == 2:
        cells = (cells + seen.features[1][:, ::-1]) / 2
    return Evidence(seen.embeddings.mean(axis=0), cells, seen.probabilities.mean(axis=0))


def encoder_of(model_type: ModelType) -> Encoder:
    """The encoder of a model type, loaded once a process."""
    return open_encoder(TRAITS[model_type].variant)


def warm_up(model_type: ModelType) -> None:
    """Let a fresh encoder look once, so that no visitor waits for it."""
    look(ImageOps.expand(Image.new("RGB", (8, 8), "white"), 8, "grey"), model_type)


def sigmoid(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """1 / (1 + exp(-x)), for any x."""
    return np.asarray(np.exp(-np.logaddexp(0, -values)), np.float64)
