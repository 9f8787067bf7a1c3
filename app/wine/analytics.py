"""What the reviews say as a whole: the numbers behind the charts, each with one sentence computed from them.

Works on columns, not on texts, and needs only NumPy: the columns travel inside the model, so what is shown is always what the
model in service was trained on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from app.wine.dataset import Review
from app.wine.sentiment import tone

TOP_VARIETIES: Final = 20
PRICED_VARIETIES: Final = 10
SAMPLE: Final = 1500
"""Most dots of the price chart; more reviews are sampled, always the same ones."""

FEW: Final = 5
"""A group needs this many reviews before a sentence compares it with others."""

_SEED: Final = 11
_TONE_BINS: Final = 20
_PREFIX: Final = "table_"

Column = npt.NDArray[Any]


@dataclass(frozen=True)
class Table:
    """Reviews as columns. `country` and `variety` are indices into the names; missing points and prices are NaN.

    `price` is in US dollars, `length` in characters, `tone` between -1 and 1.
    """

    countries: list[str]
    varieties: list[str]
    country: Column
    variety: Column
    points: Column
    price: Column
    length: Column
    tone: Column

    def __len__(self) -> int:
        return len(self.country)

    def to_arrays(self) -> dict[str, Column]:
        """The columns by name, for an npz file."""
        names = {"countries": "\n".join(self.countries), "varieties": "\n".join(self.varieties)}
        arrays: dict[str, Column] = {
            f"{_PREFIX}{name}": np.frombuffer(text.encode(), dtype=np.uint8) for name, text in names.items()
        }
        return arrays | {f"{_PREFIX}{name}": getattr(self, name) for name in _COLUMNS}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Column]) -> "Table | None":
        """The table in `arrays`; None when there is none."""
        if f"{_PREFIX}country" not in arrays:
            return None
        names = [arrays[f"{_PREFIX}{name}"].tobytes().decode().split("\n") for name in ("countries", "varieties")]
        return cls(names[0], names[1], *(arrays[f"{_PREFIX}{name}"] for name in _COLUMNS))


_COLUMNS: Final = ("country", "variety", "points", "price", "length", "tone")


@dataclass(frozen=True)
class Filters:
    """What to look at; None and empty mean everything. Both ends of a range belong to it."""

    countries: Sequence[str] = ()
    varieties: Sequence[str] = ()
    min_points: float | None = None
    max_points: float | None = None
    min_price: float | None = None
    max_price: float | None = None


def make_table(reviews: Sequence[Review]) -> Table:
    """The columns of these reviews."""
    countries = sorted({review.country for review in reviews})
    varieties = sorted({review.variety or "unknown" for review in reviews})
    country_index = {name: index for index, name in enumerate(countries)}
    variety_index = {name: index for index, name in enumerate(varieties)}

    def column(values: Sequence[float | None]) -> Column:
        return np.array([np.nan if value is None else value for value in values], dtype=np.float32)

    return Table(
        countries=countries,
        varieties=varieties,
        country=np.array([country_index[review.country] for review in reviews], dtype=np.int16),
        variety=np.array([variety_index[review.variety or "unknown"] for review in reviews], dtype=np.int32),
        points=column([review.points for review in reviews]),
        price=column([review.price for review in reviews]),
        length=column([len(review.description) for review in reviews]),
        tone=column([tone(review.description) for review in reviews]),
    )


def choose(table: Table, filters: Filters) -> Table:
    """The reviews that pass the filters."""
    keep = np.ones(len(table), dtype=bool)
    if filters.countries:
        wanted = [index for index, name in enumerate(table.countries) if name in set(filters.countries)]
        keep &= np.isin(table.country, wanted)
    if filters.varieties:
        wanted = [index for index, name in enumerate(table.varieties) if name in set(filters.varieties)]
        keep &= np.isin(table.variety, wanted)
    for column, low, high in (
        (table.points, filters.min_points, filters.max_points),
        (table.price, filters.min_price, filters.max_price),
    ):
        if low is not None:
            keep &= column >= low
        if high is not None:
            keep &= column <= high
    columns = [getattr(table, name)[keep] for name in _COLUMNS]
    return Table(table.countries, table.varieties, *columns)


def options(table: Table) -> dict[str, Any]:
    """What the filters can be set to: names by number of reviews, and the ends of the ranges."""
    return {
        "countries": _by_count(table.countries, table.country),
        "varieties": _by_count(table.varieties, table.variety),
        "points": _ends(table.points),
        "price": _ends(table.price),
    }


def analyse(table: Table, filters: Filters | None = None) -> dict[str, Any]:
    """Every chart's numbers and sentence, for the reviews that pass the filters."""
    chosen = choose(table, filters or Filters())
    if not len(chosen):
        return {"reviews": 0, "of": len(table), "charts": {}}
    return {
        "reviews": len(chosen),
        "of": len(table),
        "charts": {
            "ratings": _ratings(chosen),
            "price_points": _price_points(chosen),
            "mean_price": _mean_price(chosen),
            "varieties": _varieties(chosen),
            "variety_prices": _variety_prices(chosen),
            "correlations": _correlations(chosen),
            "tone": _tones(chosen),
        },
    }


def _ratings(table: Table) -> dict[str, Any]:
    rows = _boxes(table.countries, table.country, table.points)
    rows.sort(key=lambda row: -row["mean"])
    sayable = [row for row in rows if row["reviews"] >= FEW]
    if len(sayable) > 1:
        best, worst = sayable[0], sayable[-1]
        insight = (
            f"{best['name']} is rated highest, {best['mean']:.1f} points on average over {best['reviews']} reviews; "
            f"{worst['name']} lowest, {worst['mean']:.1f}."
        )
    elif rows:
        insight = f"{rows[0]['name']}: {rows[0]['mean']:.1f} points on average over {_count(rows[0]['reviews'])}."
    else:
        insight = "No review here has points."
    return {"rows": rows, "insight": insight}


def _price_points(table: Table) -> dict[str, Any]:
    both = np.flatnonzero(np.isfinite(table.points) & np.isfinite(table.price))
    shown = both
    if len(both) > SAMPLE:
        shown = np.sort(np.random.default_rng(_SEED).choice(both, SAMPLE, replace=False))
    points, price = table.points[both].astype(float), table.price[both].astype(float)
    correlation = _correlation(points, price)
    line = None
    if correlation is None:
        insight = "Too few different prices and points to say whether they go together."
    else:
        slope, start = np.polyfit(points, price, 1)
        ends = [float(points.min()), float(points.max())]
        line = {"points": ends, "price": [float(start + slope * end) for end in ends]}
        way = "more" if slope >= 0 else "less"
        insight = (
            f"Price and points are {_strength(correlation)} (correlation {correlation:.2f}): "
            f"one more point goes with ${abs(slope):.2f} {way}."
        )
    return {
        "rows": [
            {
                "country": table.countries[table.country[index]],
                "variety": table.varieties[table.variety[index]],
                "points": float(table.points[index]),
                "price": float(table.price[index]),
            }
            for index in shown
        ],
        "correlation": correlation,
        "line": line,
        "sampled": len(both) > SAMPLE,
        "insight": insight,
    }


def _mean_price(table: Table) -> dict[str, Any]:
    rows = [
        {"name": row["name"], "mean": row["mean"], "reviews": row["reviews"]}
        for row in _boxes(table.countries, table.country, table.price)
    ]
    rows.sort(key=lambda row: -row["mean"])
    sayable = [row for row in rows if row["reviews"] >= FEW]
    if len(sayable) > 1:
        dear, cheap = sayable[0], sayable[-1]
        insight = (
            f"A bottle from {dear['name']} costs ${dear['mean']:.2f} on average, "
            f"{dear['mean'] / cheap['mean']:.1f} times one from {cheap['name']} (${cheap['mean']:.2f})."
        )
    elif rows:
        insight = f"A bottle from {rows[0]['name']} costs ${rows[0]['mean']:.2f} on average."
    else:
        insight = "No review here has a price."
    return {"rows": rows, "insight": insight}


def _varieties(table: Table) -> dict[str, Any]:
    counts = np.bincount(table.variety, minlength=len(table.varieties))
    top = [int(index) for index in np.argsort(-counts, kind="stable")[:TOP_VARIETIES] if counts[index]]
    series = []
    for country, name in enumerate(table.countries):
        inside = np.bincount(table.variety[table.country == country], minlength=len(table.varieties))
        if inside[top].any():
            series.append({"country": name, "counts": [int(inside[index]) for index in top]})
    first = top[0]
    home = np.bincount(table.country[table.variety == first], minlength=len(table.countries))
    share = counts[first] / len(table)
    insight = (
        f"{table.varieties[first]} leads with {_count(int(counts[first]))}, {share:.0%} of all; "
        f"{home.max() / counts[first]:.0%} of them come from {table.countries[int(home.argmax())]}."
    )
    return {"varieties": [table.varieties[index] for index in top], "series": series, "insight": insight}


def _variety_prices(table: Table) -> dict[str, Any]:
    counts = np.bincount(table.variety[np.isfinite(table.price)], minlength=len(table.varieties))
    top = {int(index) for index in np.argsort(-counts, kind="stable")[:PRICED_VARIETIES] if counts[index]}
    inside = np.isin(table.variety, list(top))
    rows = _boxes(table.varieties, table.variety[inside], table.price[inside])
    rows.sort(key=lambda row: -row["median"])
    if len(rows) > 1:
        spread = max(rows, key=lambda row: row["q3"] - row["q1"])
        insight = (
            f"{rows[0]['name']} has the highest median price, ${rows[0]['median']:.0f}, and {rows[-1]['name']} the lowest, "
            f"${rows[-1]['median']:.0f}; {spread['name']} varies most (half of its bottles cost ${spread['q1']:.0f} "
            f"to ${spread['q3']:.0f})."
        )
    elif rows:
        insight = f"{rows[0]['name']}: half of the bottles cost ${rows[0]['q1']:.0f} to ${rows[0]['q3']:.0f}."
    else:
        insight = "No review here has a price."
    return {"rows": rows, "insight": insight}


def _correlations(table: Table) -> dict[str, Any]:
    columns = {"points": table.points, "price": table.price, "length of the note": table.length, "tone": table.tone}
    names = list(columns)
    matrix = [[_correlation(columns[one], columns[other]) for other in names] for one in names]
    pairs = [
        (value, names[row], names[column])
        for row in range(len(names))
        for column in range(row)
        if (value := matrix[row][column]) is not None
    ]
    if pairs:
        value, one, other = max(pairs, key=lambda pair: abs(pair[0]))
        insight = f"The strongest link is between {other} and {one}: they are {_strength(value)} ({value:.2f})."
    else:
        insight = "Too few different values to compare."
    return {"names": names, "matrix": matrix, "insight": insight}


def _tones(table: Table) -> dict[str, Any]:
    counts, edges = np.histogram(table.tone, bins=_TONE_BINS, range=(-1.0, 1.0))
    praise = float((table.tone > 0.1).mean())
    blame = float((table.tone < -0.1).mean())
    correlation = _correlation(table.tone, table.points)
    tail = "" if correlation is None else f" Tone and points are {_strength(correlation)} ({correlation:.2f})."
    return {
        "edges": [round(float(edge), 3) for edge in edges],
        "counts": [int(count) for count in counts],
        "mean": float(table.tone.mean()),
        "insight": f"{praise:.0%} of the notes praise their wine and {blame:.0%} find fault with it.{tail}",
    }


def _boxes(names: Sequence[str], group: Column, values: Column) -> list[dict[str, Any]]:
    """Five numbers, mean and count of `values` in each group that has any; the fences are Tukey's."""
    rows = []
    finite = np.isfinite(values)
    for index in np.unique(group[finite]):
        inside = values[finite & (group == index)].astype(float)
        low, middle, high = np.percentile(inside, (25, 50, 75))
        reach = 1.5 * (high - low)
        rows.append(
            {
                "name": names[index],
                "reviews": len(inside),
                "mean": float(inside.mean()),
                "low": float(inside[inside >= low - reach].min()),
                "q1": float(low),
                "median": float(middle),
                "q3": float(high),
                "high": float(inside[inside <= high + reach].max()),
            }
        )
    return rows


def _correlation(one: Column, other: Column) -> float | None:
    """Pearson's correlation; None with fewer than three pairs or without variation."""
    both = np.isfinite(one) & np.isfinite(other)
    first, second = one[both].astype(float), other[both].astype(float)
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _strength(correlation: float) -> str:
    size = abs(correlation)
    if size < 0.1:
        return "not linked"
    word = "weakly" if size < 0.3 else "moderately" if size < 0.6 else "strongly"
    return f"{word} linked" if correlation > 0 else f"{word} opposed"


def _count(number: int) -> str:
    return f"{number} review" if number == 1 else f"{number} reviews"


def _by_count(names: Sequence[str], codes: Column) -> list[dict[str, Any]]:
    counts = np.bincount(codes, minlength=len(names))
    return [
        {"name": names[index], "reviews": int(counts[index])}
        for index in np.argsort(-counts, kind="stable").tolist()
        if counts[index]
    ]


def _ends(column: Column) -> list[float] | None:
    finite = column[np.isfinite(column)]
    return [float(finite.min()), float(finite.max())] if len(finite) else None
