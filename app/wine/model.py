"""The trained model: answers, abstains and explains with NumPy alone, and is stored as arrays (never a pickle).

The answer is `softmax(reach * scores / temperature + offsets + variety_weight * variety evidence)`. `reach` grows from 0 towards 1
with the words that the model knows, so that three words are never answered as surely as a whole note. Scores are linear in the
features, so the explanation is exact: what the terms of a note push, plus the constants, is the logit of the answer.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from app.wine.analytics import Table
from app.wine.features import Document, Doubles, Floats, Occurrences, Reader, Vectoriser
from app.wine.text import Backend, content_words, fold

FORMAT: Final = "pergola-wine-model/1"
MIN_KNOWN_WORDS: Final = 2
"""A note needs this many known words that are not stop words, else there is nothing to judge."""

MAX_TERMS: Final = 12
_PROBE_TOLERANCE: Final = 1e-4
_MAX_BYTES: Final = 1024**3


class ModelError(ValueError):
    """These bytes are not a model that this code can serve; the message says why."""


@dataclass(frozen=True)
class Calibration:
    """How scores become probabilities: divide by `temperature`, add `offsets` and the weighted variety evidence."""

    temperature: float
    variety_weight: float
    offsets: Doubles


@dataclass(frozen=True)
class Prediction:
    """An answer, or an abstention (`country` is None and `reason` says why).

    `top` are (country, probability), best first. `terms` are (term, weight), strongest first: by how much, in log-odds against
    the average country, the term pushes towards (or, below zero, away from) the answer.
    """

    country: str | None
    reason: str | None
    confidence: float
    top: list[tuple[str, float]]
    terms: list[tuple[str, float]]


@dataclass(frozen=True)
class Probe:
    """A note whose probabilities are known from training; a model that answers it differently is not served."""

    description: str
    variety: str
    probabilities: list[float]


@dataclass(frozen=True)
class WineModel:
    """Everything that serving needs. `weights` is (features, classes), `evidence` is (varieties, classes)."""

    classes: list[str]
    backend: Backend
    vectoriser: Vectoriser
    weights: Floats
    bias: Floats
    varieties: Mapping[str, int]
    evidence: Floats
    plain: Calibration
    with_variety: Calibration
    known_words: frozenset[str]
    stop_words: frozenset[str]
    shrink: float
    min_coverage: float
    probes: list[Probe] = field(default_factory=list)
    table: Table | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_reader", Reader(self.backend))

    @property
    def reader(self) -> Reader:
        """How this model reads text."""
        return cast(Reader, self.__dict__["_reader"])

    def predict(self, description: str, variety: str | None = None, top_k: int = 3) -> Prediction:
        """The answer for one note; abstains when there is too little that the model knows."""
        document = self.reader.read(description)
        if reason := self.why_not(document):
            return Prediction(None, reason, 0.0, [], [])
        occurrences = self.vectoriser.transform(document)
        evidence = self.evidence_of(variety)
        probabilities = self._probabilities(document, occurrences, evidence)
        order = np.argsort(-probabilities, kind="stable")
        best = int(order[0])
        top = [(self.classes[index], float(probabilities[index])) for index in order[:top_k]]
        terms = self._explain(document, occurrences, evidence, variety or "", best)
        strongest = sorted(terms.items(), key=lambda item: (-abs(item[1]), item[0]))
        return Prediction(
            country=self.classes[best],
            reason=None,
            confidence=float(probabilities[best]),
            top=top,
            terms=[(term, weight) for term, weight in strongest if self._worth_showing(term)][:MAX_TERMS],
        )

    def probabilities(self, description: str, variety: str | None = None) -> Doubles:
        """Probability of every class, without abstaining."""
        document = self.reader.read(description)
        return self._probabilities(document, self.vectoriser.transform(document), self.evidence_of(variety))

    def explain(self, description: str, variety: str | None, country: str) -> tuple[dict[str, float], float]:
        """What every term pushes towards `country`, and the constant; their sum is its logit against the average country."""
        document = self.reader.read(description)
        evidence = self.evidence_of(variety)
        index = self.classes.index(country)
        calibration = self.plain if evidence is None else self.with_variety
        constant = self.bias * self._reach(document) / calibration.temperature + calibration.offsets
        terms = self._explain(document, self.vectoriser.transform(document), evidence, variety or "", index)
        return terms, float(constant[index] - constant.mean())

    def why_not(self, document: Document) -> str | None:
        """Why this note cannot be judged; None when it can."""
        content = content_words(document.words, self.stop_words)
        if not content:
            return "There are no words about a wine in this note."
        known = len(content & self.known_words)
        if known < MIN_KNOWN_WORDS:
            return "The note has too few words that the model knows from tasting notes."
        if known / len(content) < self.min_coverage:
            return f"Only {known} of {len(content)} words are known from tasting notes; this does not read like one."
        return None

    def evidence_of(self, variety: str | None) -> Doubles | None:
        """Log-likelihood of the variety in each class, centred; None when there is none or it is unknown."""
        row = self.varieties.get(fold(variety.strip())) if variety else None
        return None if row is None else np.asarray(self.evidence[row], dtype=np.float64)

    def check(self) -> None:
        """Answer the probes. Raises ModelError when an answer is not the one of training."""
        for probe in self.probes:
            got = self.probabilities(probe.description, probe.variety)
            if not np.allclose(got, probe.probabilities, atol=_PROBE_TOLERANCE):
                expected = self.classes[int(np.argmax(probe.probabilities))]
                raise ModelError(
                    f"test prediction is wrong: expected {expected} at {max(probe.probabilities):.4f}, "
                    f"got {self.classes[int(got.argmax())]} at {got.max():.4f}"
                )

    def _reach(self, document: Document) -> float:
        known = len(content_words(document.words, self.stop_words) & self.known_words)
        return float(reach(np.array([known], dtype=np.float64), self.shrink)[0, 0])

    def _probabilities(self, document: Document, occurrences: Occurrences, evidence: Doubles | None) -> Doubles:
        scores = (occurrences.values @ self.weights[occurrences.ids] + self.bias) * self._reach(document)
        calibration = self.plain if evidence is None else self.with_variety
        probabilities: Doubles = calibrate(scores[None, :], calibration, evidence)[0]
        return probabilities

    def _explain(
        self, document: Document, occurrences: Occurrences, evidence: Doubles | None, variety: str, index: int
    ) -> dict[str, float]:
        calibration = self.plain if evidence is None else self.with_variety
        rows = self.weights[occurrences.ids]
        push = (rows[:, index] - rows.mean(axis=1)) * self._reach(document) / calibration.temperature
        each = np.bincount(
            occurrences.term, weights=push[occurrences.position] * occurrences.share, minlength=len(document.terms)
        )
        terms: dict[str, float] = {}
        for term, weight in zip(document.terms, each.tolist(), strict=True):
            if weight:
                terms[term] = terms.get(term, 0.0) + weight
        if evidence is not None:
            name = f"variety: {variety.strip()}"
            terms[name] = calibration.variety_weight * float(evidence[index] - evidence.mean())
        return terms

    def _worth_showing(self, term: str) -> bool:
        return term.startswith("variety: ") or not all(word in self.stop_words for word in term.split())


def reach(known: Doubles, shrink: float) -> Doubles:
    """How far a note with so many known words reaches, as a column: `known / (known + shrink)`, and 1 when nothing shrinks."""
    column: Doubles = (known / (known + shrink) if shrink else np.ones_like(known))[:, None]
    return column


def calibrate(scores: Doubles, calibration: Calibration, evidence: Doubles | None = None) -> Doubles:
    """Probabilities of scores (notes, classes)."""
    logits = scores / calibration.temperature + calibration.offsets
    if evidence is not None:
        logits = logits + calibration.variety_weight * evidence
    logits = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(logits)
    probabilities: Doubles = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def to_bytes(model: WineModel) -> bytes:
    """The model as a compressed file of plain arrays (npz)."""
    header = {
        "format": FORMAT,
        "classes": model.classes,
        "backend": model.backend.as_dict(),
        "shrink": model.shrink,
        "min_coverage": model.min_coverage,
        "probes": [vars(probe) for probe in model.probes],
    }
    arrays: dict[str, npt.NDArray[Any]] = {
        "header": _text(json.dumps(header)),
        "words": _lines(model.vectoriser.vocabularies[0]),
        "chars": _lines(model.vectoriser.vocabularies[1]),
        "idf": model.vectoriser.idf,
        "weights": model.weights,
        "bias": model.bias,
        "varieties": _lines(model.varieties),
        "evidence": model.evidence,
        "plain": _pack(model.plain),
        "with_variety": _pack(model.with_variety),
        "known_words": _lines(sorted(model.known_words)),
        "stop_words": _lines(sorted(model.stop_words)),
    }
    if model.table is not None:
        arrays |= model.table.to_arrays()
    out = io.BytesIO()
    np.savez_compressed(out, allow_pickle=False, **arrays)
    return out.getvalue()


def from_bytes(data: bytes) -> WineModel:
    """The model in `data`, checked for sense. Raises ModelError; never unpickles."""
    if len(data) > _MAX_BYTES:
        raise ModelError(f"{len(data)} bytes is too large for a model")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        model = _assemble(arrays)
    except ModelError:
        raise
    except (
        OSError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise ModelError(f"not a wine model: {type(error).__name__}: {error}") from error
    _check_shapes(model)
    model.check()
    return model


def _assemble(arrays: Mapping[str, npt.NDArray[Any]]) -> WineModel:
    header = json.loads(arrays["header"].tobytes())
    if header.get("format") != FORMAT:
        raise ModelError(f"model format {header.get('format')!r}, this release reads {FORMAT!r}: train again")
    words, chars = _unlines(arrays["words"]), _unlines(arrays["chars"])
    return WineModel(
        classes=[str(name) for name in header["classes"]],
        backend=Backend(**header["backend"]),
        vectoriser=Vectoriser(
            (
                {feature: index for index, feature in enumerate(words)},
                {feature: index for index, feature in enumerate(chars, start=len(words))},
            ),
            arrays["idf"],
        ),
        weights=arrays["weights"],
        bias=arrays["bias"],
        varieties={name: index for index, name in enumerate(_unlines(arrays["varieties"]))},
        evidence=arrays["evidence"],
        plain=_unpack(arrays["plain"]),
        with_variety=_unpack(arrays["with_variety"]),
        known_words=frozenset(_unlines(arrays["known_words"])),
        stop_words=frozenset(_unlines(arrays["stop_words"])),
        shrink=float(header["shrink"]),
        min_coverage=float(header["min_coverage"]),
        probes=[Probe(**probe) for probe in header["probes"]],
        table=Table.from_arrays(arrays),
    )


def _check_shapes(model: WineModel) -> None:
    features, classes = sum(len(part) for part in model.vectoriser.vocabularies), len(model.classes)
    expected: dict[str, tuple[npt.NDArray[Any], tuple[int, ...]]] = {
        "idf": (model.vectoriser.idf, (features,)),
        "weights": (model.weights, (features, classes)),
        "bias": (model.bias, (classes,)),
        "evidence": (model.evidence, (len(model.varieties), classes)),
        "offsets": (model.plain.offsets, (classes,)),
        "offsets with variety": (model.with_variety.offsets, (classes,)),
    }
    if classes < 2 or len(set(model.classes)) != classes:
        raise ModelError(f"a model needs at least two different classes, this one has {model.classes}")
    for name, (array, shape) in expected.items():
        if array.shape != shape:
            raise ModelError(f"{name} has shape {array.shape}, expected {shape}")
        if not np.isfinite(array).all():
            raise ModelError(f"{name} has values that are not finite")
    if not (model.plain.temperature > 0 and model.with_variety.temperature > 0):
        raise ModelError("the temperature must be above 0")
    if not model.probes:
        raise ModelError("the model has no test predictions")


def _pack(calibration: Calibration) -> Doubles:
    return np.concatenate(([calibration.temperature, calibration.variety_weight], calibration.offsets))


def _unpack(array: npt.NDArray[Any]) -> Calibration:
    return Calibration(float(array[0]), float(array[1]), array[2:].astype(np.float64))


def _text(text: str) -> npt.NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


def _lines(items: Sequence[str] | Mapping[str, int]) -> npt.NDArray[np.uint8]:
    return _text("\n".join(items))


def _unlines(array: npt.NDArray[Any]) -> list[str]:
    text = array.tobytes().decode()
    return text.split("\n") if text else []
