"""Writes the starter corpus: tasting notes made for this project, so that a fresh install can train and serve.

The notes are not reviews of bottles that exist. They are put together from `vocabulary.yml` by a seeded generator:
the same vocabulary always gives the same `notes.csv`. Whoever has real reviews trains on those instead.

    python -m app.wine.corpus.generate            # write notes.csv
    python -m app.wine.corpus.generate --check    # fail when notes.csv is not what the vocabulary gives
"""

import argparse
import csv
import io
import random
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).parent
NOTES: Final = HERE / "notes.csv"
VOCABULARY: Final = HERE / "vocabulary.yml"
COLUMNS: Final = ("country", "description", "points", "price", "variety")
NOTES_A_COUNTRY: Final = 90
SEED: Final = 20
MISSING_PRICES: Final = 0.04
POINTS: Final = (80, 98)
PRICES: Final = (6, 463)


@dataclass(frozen=True)
class Wine:
    """What a note is about, before it has words."""

    country: str
    variety: str
    style: Mapping[str, Any]
    style_name: str
    points: int
    price: int | None


def write_notes(
    vocabulary: Mapping[str, Any], *, seed: int = SEED, each: int = NOTES_A_COUNTRY
) -> list[dict[str, str]]:
    """`each` notes for every country of the vocabulary, no two alike, in a shuffled order."""
    rows: list[dict[str, str]] = []
    seen: set[str] = set()
    for country in vocabulary["countries"]:
        rng = random.Random(f"{seed}/{country}")  # noqa: S311 - repeatable text, not a secret
        written = 0
        while written < each:
            wine = _wine(country, vocabulary, rng)
            text = " ".join(_sentences(wine, vocabulary, rng))
            if text in seen:
                continue
            seen.add(text)
            written += 1
            price = "" if wine.price is None else str(wine.price)
            rows.append(dict(zip(COLUMNS, (country, text, str(wine.points), price, wine.variety), strict=True)))
    random.Random(seed).shuffle(rows)  # noqa: S311 - as above
    return rows


def as_csv(rows: Sequence[Mapping[str, str]]) -> str:
    """The corpus file: the columns of a review file, with an unnamed index first."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(("", *COLUMNS))
    writer.writerows((index, *(row[column] for column in COLUMNS)) for index, row in enumerate(rows))
    return out.getvalue()


def load_vocabulary(path: Path = VOCABULARY) -> dict[str, Any]:
    """The vocabulary, as it is in the file."""
    vocabulary: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return vocabulary


def _wine(country: str, vocabulary: Mapping[str, Any], rng: random.Random) -> Wine:
    grapes = vocabulary["countries"][country]["grapes"]
    name, style_name, _, low, high = rng.choices(grapes, [grape[2] for grape in grapes])[0]
    quality = min(max(rng.gauss(0.5, 0.19), 0.0), 1.0)
    points = round(POINTS[0] + 1 + quality * (POINTS[1] - POINTS[0] - 2))
    # dearer wines score higher, loosely: the price follows the quality on a log scale, with its own luck
    place = min(max(0.62 * quality + 0.38 * rng.betavariate(1.6, 2.6), 0.0), 1.0)
    price = round(low * (high / low) ** place)
    if rng.random() < 0.01:  # a trophy bottle now and then
        price = round(price * rng.uniform(2.0, 4.0))
    missing = rng.random() < MISSING_PRICES
    return Wine(
        country=country,
        variety=name,
        style=vocabulary["styles"][style_name],
        style_name=style_name,
        points=points,
        price=None if missing else min(max(price, PRICES[0]), PRICES[1]),
    )


def _sentences(wine: Wine, vocabulary: Mapping[str, Any], rng: random.Random) -> Iterator[str]:
    parts = vocabulary["sentences"]
    country = vocabulary["countries"][wine.country]
    words = _words(wine, vocabulary, rng)

    def say(templates: Sequence[str]) -> str:
        fitting = _suitable(templates, wine)
        return _fill(rng.choice(fitting), words) if fitting else ""

    draw = rng.random()
    body = [say(parts["nose"]), say(parts["palate"])]
    if draw < 0.18:
        body = [say(country["voice"]), body[1]]
    elif draw < 0.30:
        body = body[:1]
    place = say(country["place"])
    if rng.random() < 0.55:
        body.insert(rng.choice((0, 1, len(body))), place)
    elif rng.random() < 0.5:
        body.append(say(country["voice"]))
    yield from filter(None, dict.fromkeys(body))
    if wine.points >= 92 and rng.random() < 0.6:
        yield say(parts["great"])
    elif wine.points <= 84 and rng.random() < 0.6:
        yield say(parts["poor"])
    if rng.random() < 0.6:
        yield say(parts["finish"])
    if rng.random() < 0.55:
        yield say(parts["verdict"])


def _suitable(templates: Sequence[str], wine: Wine) -> list[str]:
    """Templates that are true for the wine, without their conditions."""
    fitting = []
    for template in templates:
        text, _, condition = template.partition(" | ")
        allowed = {item.strip() for item in condition.split(",")} - {""}
        if not allowed or allowed & {wine.variety, wine.style_name, wine.style["colour"]}:
            fitting.append(text)
    return fitting


def _words(wine: Wine, vocabulary: Mapping[str, Any], rng: random.Random) -> dict[str, str]:
    country = vocabulary["countries"][wine.country]
    fruit = rng.sample(wine.style["fruit"], 4)
    other = rng.sample(wine.style["other"], 4)
    body = rng.sample(wine.style["body"], 2)
    finish = rng.choice(vocabulary["finishes"][wine.style["colour"]])
    frame = rng.choice(wine.style["frame"])
    return {
        "grape": wine.variety,
        "region": rng.choice(country["regions"]),
        "food": rng.choice(country["food"]),
        "fruit": fruit[0],
        "fruit2": fruit[1],
        "fruit3": fruit[2],
        "Fruit": _capital(fruit[0]),
        "other": other[0],
        "other2": other[1],
        "other3": other[2],
        "other4": other[3],
        "Other": _capital(other[0]),
        "body": body[0],
        "body2": body[1],
        "Body": _capital(body[0]),
        "frame": frame,
        "Frame_": _capital(frame),
        "finish": finish,
        "Finish_": _capital(finish),
        "year": str(2026 + round((wine.points - 80) * 0.5) + rng.randint(1, 5)),
    }


def _fill(template: str, words: Mapping[str, str]) -> str:
    text = template.format_map(words)
    # "A elegant" reads badly: the article follows the sound of the word that was filled in
    return re.sub(r"\b([Aa]) (?=[aeioAEIO]|umami|un(?!i))", r"\1n ", text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check `notes.csv`; 1 when the check fails."""
    parser = argparse.ArgumentParser(prog="python -m app.wine.corpus.generate", description="Write the starter corpus.")
    parser.add_argument("--check", action="store_true", help="only say whether notes.csv is up to date")
    options = parser.parse_args(arguments)
    text = as_csv(write_notes(load_vocabulary()))
    if options.check:
        if NOTES.is_file() and NOTES.read_text(encoding="utf-8") == text:
            return 0
        print("notes.csv is not what vocabulary.yml gives: run python -m app.wine.corpus.generate", file=sys.stderr)
        return 1
    NOTES.write_text(text, encoding="utf-8")
    print(f"{text.count(chr(10)) - 1} notes written to {NOTES.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
