"""Reading and cleaning reviews."""

from pathlib import Path

import pytest

from app.core.storage import FolderStorage
from app.wine.dataset import DATA_KEY, STARTER, DataError, read_csv, read_file, read_storage

HEAD = ",country,description,points,price,variety\n"


def test_dirty_rows_are_dropped_and_counted_and_prices_filled() -> None:
    rows = [
        '0,US,"Ripe, dark plum.",90,20,Merlot',
        "1,US,Lean lime.,85,,Riesling",
        "2,Spain,,88,12,Tempranillo",
        "3,,Smoke and leather.,88,12,Syrah",
        '4,Italy,"ripe,  dark  PLUM.",91,40,Merlot',
        "5,Italy,Sour cherry.,n/a,40,",
    ]
    data = read_csv((HEAD + "\n".join(rows)).encode(), "reviews.csv")
    assert [review.country for review in data.reviews] == ["US", "US", "Italy"]
    assert [review.price for review in data.reviews] == [20, 30, 40]
    assert data.reviews[2].points is None
    assert data.cleaning.as_dict() == {
        "rows": 6,
        "kept": 3,
        "without_text": 1,
        "without_country": 1,
        "duplicates": 1,
        "price_filled": 1,
        "median_price": 30,
    }


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"country,points\nUS,90\n", "no column description; expected country, description"),
        (b"", "no column country and description"),
        ("country,description\nUS,Château\n".encode("latin-1"), "byte 25 is not UTF-8"),
        (b"country,description\n,\n", "no row has both"),
        (b'country,description\nUS,"' + b"x" * 1_100_000 + b'"\n', "line 1: field larger"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_csv(data, "reviews.csv")


def test_excels_byte_order_mark_is_no_part_of_the_first_column() -> None:
    assert len(read_csv(b"\xef\xbb\xbfcountry,description\nUS,Plum.\n", "x").reviews) == 1


def test_the_operators_reviews_come_before_the_starter_corpus(storage: FolderStorage) -> None:
    assert read_storage(storage).source == STARTER
    storage.put(DATA_KEY, b"country,description\nUS,Plum.\n")
    assert read_storage(storage).source == DATA_KEY


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.csv: No such file"):
        read_file(tmp_path / "nothing.csv")


def test_the_real_reviews_can_be_read(shared_data: Path) -> None:
    data = read_file(shared_data / "wine_reviews_600.csv")
    assert data.cleaning.kept == 600
    assert {review.country for review in data.reviews} == {"US", "Italy", "France", "Spain"}
