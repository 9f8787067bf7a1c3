"""Many notes: reading CSV, writing JSON, lines and CSV."""

import csv
import io
import json

import pytest

from app.wine.batch import Item, as_csv, as_json, as_lines, read_upload
from app.wine.dataset import DataError
from app.wine.schemas import MAX_ROWS, Answer, BatchAnswer, Candidate


def predict(item: Item) -> Answer:
    if item.problem:
        return Answer(
            predicted_country=None, reason=item.problem, confidence=0, top=[], terms=[], model_version="v", latency_ms=0
        )
    return Answer(
        predicted_country="Spain", reason=None, confidence=0.75, top=[Candidate(country="Spain", probability=0.75)],
        terms=[], model_version="v", latency_ms=1,
    )  # fmt: skip


def test_other_columns_are_kept_and_bad_rows_get_a_reason() -> None:
    upload = read_upload(b'id,description,variety\n1,"plum, oak",Malbec\n\n2,,\n3,' + b"x" * 5001 + b"\n4,fig\n")
    assert [item.variety for item in upload.items] == ["Malbec", None, None, None]
    rows = list(
        csv.DictReader(io.StringIO(b"".join(as_csv(upload.columns, upload.items, predict)).decode(), newline=""))
    )
    assert [row["id"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["predicted_country"] for row in rows] == ["Spain", "", "", "Spain"]
    assert [row["confidence"] for row in rows] == ["0.7500", "0.0000", "0.0000", "0.7500"]
    assert rows[0]["description"] == "plum, oak"
    assert rows[0]["top"] == "Spain 0.750"
    assert rows[1]["reason"] == "The description is empty."
    assert "5001 characters" in rows[2]["reason"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "first line must name the columns"),
        (b"note\nplum\n", "one of them must be description"),
        (b"description\n", "no row below"),
        (b"description\n\xff\xfe\n", "not UTF-8"),
        (b"description\n" + b"plum\n" * (MAX_ROWS + 1), "more than 10000 rows"),
        (b'description\n"' + b"x" * 200_001 + b'"\n', "line 2: field larger"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_upload(data)


def test_answers_come_one_by_one() -> None:
    asked: list[str] = []

    def slow(item: Item) -> Answer:
        asked.append(item.description)
        return predict(item)

    stream = as_lines([Item("one", None, 3), Item("two", None, 3)], slow)
    next(stream)
    assert asked == ["one"]
    rest = [json.loads(line) for line in stream]
    assert len(rest) == 1
    assert asked == ["one", "two"]


@pytest.mark.parametrize("size", [0, 1, 3])
def test_the_json_is_whole(size: int) -> None:
    text = b"".join(as_json([Item("plum", None, 3)] * size, predict, 'v"1'))
    found = BatchAnswer.model_validate_json(text)
    assert found.model_version == 'v"1'
    assert len(found.results) == size
