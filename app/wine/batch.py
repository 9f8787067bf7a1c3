"""Many notes at once: read from CSV, answered one after the other, streamed back as JSON, JSON lines or CSV."""

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.wine.dataset import DataError
from app.wine.schemas import MAX_CHARACTERS, MAX_ROWS, MAX_VARIETY, Answer

ADDED: Final = ("predicted_country", "confidence", "top", "reason", "model_version")
"""Columns that an answered CSV has after the ones it came with."""

_CELL_BYTES: Final = 200_000


@dataclass(frozen=True)
class Item:
    """One note of a batch. `problem` says why it cannot be asked; `row` are the cells it came with."""

    description: str
    variety: str | None
    top_k: int
    problem: str | None = None
    row: Sequence[str] = ()


@dataclass(frozen=True)
class Upload:
    """A CSV that was read: its columns, its rows."""

    columns: list[str]
    items: list[Item]


Predict = Callable[[Item], Answer]


def read_upload(data: bytes, top_k: int = 3) -> Upload:
    """The notes of a CSV file with a column `description` and perhaps `variety`. Raises DataError.

    A row whose note is empty or too long is answered with a reason, so that one bad row does not cost the others.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"byte {error.start} is not UTF-8; save the file as UTF-8 CSV") from error
    csv.field_size_limit(_CELL_BYTES)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        columns = next(reader, [])
        if "description" not in columns:
            raise DataError("the first line must name the columns, and one of them must be description")
        items: list[Item] = []
        for cells in reader:
            if not cells:
                continue
            if len(items) == MAX_ROWS:
                raise DataError(f"more than {MAX_ROWS} rows; split the file")
            items.append(_item(columns, cells, top_k))
    except csv.Error as error:
        raise DataError(f"line {reader.line_num}: {error}") from error
    if not items:
        raise DataError("there is no row below the first line")
    return Upload(columns, items)


def as_json(items: Sequence[Item], predict: Predict, version: str) -> Iterator[bytes]:
    """One JSON object, `results` in the order of the items."""
    yield b'{"model_version":' + json.dumps(version).encode() + b',"results":['
    for index, item in enumerate(items):
        yield (b"," if index else b"") + predict(item).model_dump_json().encode()
    yield b"]}"


def as_lines(items: Sequence[Item], predict: Predict) -> Iterator[bytes]:
    """One JSON object a line."""
    for item in items:
        yield predict(item).model_dump_json().encode() + b"\n"


def as_csv(columns: Sequence[str], items: Sequence[Item], predict: Predict) -> Iterator[bytes]:
    """The rows that came, with the answers in columns after them."""
    yield _line([*columns, *ADDED])
    for item in items:
        answer = predict(item)
        top = "; ".join(f"{candidate.country} {candidate.probability:.3f}" for candidate in answer.top)
        cells = [*item.row, *[""] * (len(columns) - len(item.row))]
        yield _line(
            [
                *cells,
                answer.predicted_country or "",
                f"{answer.confidence:.4f}",
                top,
                answer.reason or "",
                answer.model_version,
            ]
        )


def _item(columns: Sequence[str], cells: Sequence[str], top_k: int) -> Item:
    named: Mapping[str, str] = dict(zip(columns, cells, strict=False))
    description = named.get("description", "").strip()
    variety = named.get("variety", "").strip()[:MAX_VARIETY] or None
    problem = None
    if not description:
        problem = "The description is empty."
    elif len(description) > MAX_CHARACTERS:
        problem = f"The description has {len(description)} characters; at most {MAX_CHARACTERS} are read."
    return Item(description, variety, top_k, problem, list(cells[: len(columns)]))


def _line(cells: Sequence[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerow(cells)
    return out.getvalue().encode()
