"""Reviews: reading, cleaning, and saying what was thrown away."""

import csv
import hashlib
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from app.core.storage import NotFound, Storage
from app.wine.corpus.generate import NOTES
from app.wine.text import fold

DATA_KEY: Final = "data/reviews.csv"
"""Where the operator puts his reviews in the app's storage."""

STARTER: Final = "starter corpus (written for Pergola, not reviews)"

_NEEDED: Final = ("country", "description")
_FIELD_BYTES: Final = 1_000_000


class DataError(ValueError):
    """The reviews cannot be used; the message says what is wrong and where."""


@dataclass(frozen=True)
class Review:
    """One note. `points` is None when missing; `price` is in US dollars and filled with the median when missing."""

    country: str
    description: str
    variety: str
    points: float | None
    price: float | None


@dataclass(frozen=True)
class Cleaning:
    """What reading did: rows in, rows left, and why the others went."""

    rows: int
    kept: int
    without_text: int
    without_country: int
    duplicates: int
    price_filled: int
    median_price: float | None

    def as_dict(self) -> dict[str, Any]:
        """For the model's description."""
        return asdict(self)


@dataclass(frozen=True)
class Dataset:
    """Clean reviews, where they came from, and the SHA-256 of the file they were in."""

    reviews: Sequence[Review]
    source: str
    sha256: str
    cleaning: Cleaning


def read_csv(data: bytes, source: str) -> Dataset:
    """Reviews of a CSV file (UTF-8, with a header). Raises DataError.

    A missing price becomes the median price; rows without text or country and repeated descriptions are dropped and counted.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: byte {error.start} is not UTF-8; save the file as UTF-8 CSV") from error
    csv.field_size_limit(_FIELD_BYTES)
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(
                f"{source}: no column {' and '.join(missing)}; expected country, description, points, price, variety"
            )
        reviews, cleaning = _clean(reader)
    except csv.Error as error:
        raise DataError(f"{source}, line {reader.line_num}: {error}") from error
    if not reviews:
        raise DataError(f"{source}: no row has both a country and a description")
    return Dataset(reviews, source, hashlib.sha256(data).hexdigest(), cleaning)


def read_starter() -> Dataset:
    """The corpus that ships with the project."""
    return read_csv(NOTES.read_bytes(), STARTER)


def read_file(path: Path) -> Dataset:
    """Reviews of a file. Raises DataError."""
    try:
        return read_csv(path.read_bytes(), path.name)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def read_storage(storage: Storage) -> Dataset:
    """The operator's reviews when the storage has them, else the starter corpus. Raises DataError."""
    try:
        data = storage.get(DATA_KEY)
    except NotFound:
        return read_starter()
    return read_csv(data, DATA_KEY)


def number(value: str | None) -> float | None:
    """A cell as a number; None when it is empty or not one."""
    try:
        parsed = float((value or "").strip())
    except ValueError:
        return None
    return parsed if abs(parsed) < float("inf") else None


def _clean(rows: Iterable[Mapping[str, str | None]]) -> tuple[list[Review], Cleaning]:
    reviews: list[Review] = []
    seen: set[str] = set()
    dropped: Counter[str] = Counter()
    total = 0
    for row in rows:
        total += 1
        description = " ".join((row.get("description") or "").split())
        country = (row.get("country") or "").strip()
        key = fold(description)
        if not description:
            dropped["text"] += 1
        elif not country:
            dropped["country"] += 1
        elif key in seen:
            dropped["duplicate"] += 1
        else:
            seen.add(key)
            variety = (row.get("variety") or "").strip()
            reviews.append(Review(country, description, variety, number(row.get("points")), number(row.get("price"))))
    prices = [review.price for review in reviews if review.price is not None]
    median = statistics.median(prices) if prices else None
    filled = [replace(review, price=median) if review.price is None else review for review in reviews]
    return filled, Cleaning(
        rows=total,
        kept=len(filled),
        without_text=dropped["text"],
        without_country=dropped["country"],
        duplicates=dropped["duplicate"],
        price_filled=len(reviews) - len(prices) if prices else 0,
        median_price=median,
    )
