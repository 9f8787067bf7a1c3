"""Analytics: numbers checked against plain Python, sentences against the numbers."""

import csv
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from app.wine.analytics import Filters, Table, analyse, choose, make_table, options
from app.wine.dataset import Review, read_file, read_starter

CHARTS = {"ratings", "price_points", "mean_price", "varieties", "variety_prices", "correlations", "tone"}


@pytest.fixture(scope="module")
def table() -> Table:
    return make_table(read_starter().reviews)


def pearson(one: list[float], other: list[float]) -> float:
    return statistics.correlation(one, other)


def test_all_charts_have_a_sentence(table: Table) -> None:
    found = analyse(table)
    assert found["reviews"] == found["of"] == len(table)
    assert set(found["charts"]) == CHARTS
    for name, chart in found["charts"].items():
        assert re.fullmatch(r"[A-Z0-9].*\d.*[.]", chart["insight"]), f"{name}: {chart['insight']}"


def test_numbers_of_real_reviews(shared_data: Path) -> None:
    """Against the file itself, computed with the standard library."""
    path = shared_data / "wine_reviews_600.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    points, prices = [float(row["points"]) for row in rows], [float(row["price"]) for row in rows]
    charts = analyse(make_table(read_file(path).reviews))["charts"]
    assert charts["price_points"]["correlation"] == pytest.approx(pearson(points, prices), abs=1e-6)
    means = {row["name"]: row["mean"] for row in charts["mean_price"]["rows"]}
    for country in ("France", "Italy", "Spain", "US"):
        expected = statistics.fmean(price for price, row in zip(prices, rows, strict=True) if row["country"] == country)
        assert means[country] == pytest.approx(expected, abs=1e-4)
    ratings = {row["name"]: row for row in charts["ratings"]["rows"]}
    italian = [point for point, row in zip(points, rows, strict=True) if row["country"] == "Italy"]
    assert ratings["Italy"]["median"] == statistics.median(italian)
    assert [ratings["Italy"]["q1"], ratings["Italy"]["q3"]] == statistics.quantiles(italian, n=4, method="inclusive")[
        ::2
    ]
    # the whole set has corr 0.5134 and FR 41.50, IT 30.90, US 33.09, ES 26.59: these 600 are a sample of it
    assert charts["price_points"]["correlation"] == pytest.approx(0.5134, abs=0.08)
    assert means["France"] > means["Spain"]


def test_the_most_frequent_grapes_are_stacked_by_country(table: Table) -> None:
    chart = analyse(table)["charts"]["varieties"]
    assert len(chart["varieties"]) == 20
    totals = [sum(series["counts"][place] for series in chart["series"]) for place in range(20)]
    assert totals == sorted(totals, reverse=True)
    first = sum(table.varieties[code] == chart["varieties"][0] for code in table.variety)
    assert totals[0] == first
    assert f"{chart['varieties'][0]} leads with {first} reviews" in chart["insight"]


def test_the_heat_map_is_symmetric_with_ones(table: Table) -> None:
    chart = analyse(table)["charts"]["correlations"]
    matrix: list[list[Any]] = chart["matrix"]
    for row in range(len(matrix)):
        assert matrix[row][row] == pytest.approx(1)
        for column in range(len(matrix)):
            assert matrix[row][column] == pytest.approx(matrix[column][row])


def test_the_histogram_counts_every_note(table: Table) -> None:
    chart = analyse(table)["charts"]["tone"]
    assert sum(chart["counts"]) == len(table)
    assert len(chart["edges"]) == len(chart["counts"]) + 1


def test_filters_choose(table: Table) -> None:
    chosen = choose(table, Filters(countries=["Spain", "Italy"], min_points=90, max_price=40))
    assert 0 < len(chosen) < len(table)
    assert {table.countries[code] for code in chosen.country} == {"Spain", "Italy"}
    assert chosen.points.min() >= 90
    assert chosen.price.max() <= 40
    only = choose(table, Filters(varieties=["Malbec"]))
    assert {table.varieties[code] for code in only.variety} == {"Malbec"}


@pytest.mark.parametrize("filters", [Filters(countries=["Nowhere"]), Filters(min_points=99), Filters(max_price=1)])
def test_a_filter_that_nothing_passes_gives_nothing(table: Table, filters: Filters) -> None:
    assert analyse(table, filters) == {"reviews": 0, "of": len(table), "charts": {}}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_very_few_reviews_break_nothing(size: int) -> None:
    reviews = [Review("Spain", f"note {n}", "", 90.0 if n else None, None) for n in range(size)]
    found = analyse(make_table(reviews))
    assert set(found["charts"]) == CHARTS
    assert found["charts"]["price_points"]["correlation"] is None
    assert found["charts"]["mean_price"]["insight"] == "No review here has a price."


def test_many_reviews_are_sampled_for_the_dots_only() -> None:
    reviews = [Review("Spain", f"note {n}", "Viura", 80.0 + n % 15, 10.0 + n % 90) for n in range(4000)]
    found = analyse(make_table(reviews))
    chart = found["charts"]["price_points"]
    assert found["reviews"] == 4000
    assert len(chart["rows"]) == 1500
    assert chart["sampled"]
    assert analyse(make_table(reviews))["charts"]["price_points"]["rows"] == chart["rows"]


def test_the_options_have_what_is_there(table: Table) -> None:
    found = options(table)
    assert sum(row["reviews"] for row in found["countries"]) == len(table)
    assert found["points"][0] >= 80
    assert found["price"][1] <= 463
