"""Marking, in the text that a visitor wrote, the terms that pushed the answer."""

import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

from app.wine.text import chunk_label, fold

_CHUNK: Final = re.compile(r"\S+")
_FAINTEST: Final = 0.12
_RANGE: Final = 0.6


def marked(text: str, terms: Sequence[Mapping[str, float | str]]) -> str:
    """The text as HTML, its terms in <mark>: stronger pushes are darker, green for and red against the answer."""
    weights = _by_words(terms)
    strongest = max((abs(weight) for weight in weights.values()), default=0.0)
    chunks = [(match.start(), match.end(), chunk_label(fold(match.group()))) for match in _CHUNK.finditer(text)]
    longest = max((len(words) for words in weights), default=0)
    out: list[str] = []
    done = index = 0
    while index < len(chunks):
        found = _longest_term(chunks, index, weights, longest)
        if found is None:
            index += 1
            continue
        size, weight = found
        start, end = chunks[index][0], chunks[index + size - 1][1]
        out.append(escape(text[done:start]))
        out.append(_mark(text[start:end], weight, strongest))
        done, index = end, index + size
    out.append(escape(text[done:]))
    return "".join(out)


def _by_words(terms: Sequence[Mapping[str, float | str]]) -> dict[tuple[str, ...], float]:
    return {
        tuple(str(term["term"]).split()): float(term["weight"])
        for term in terms
        if not str(term["term"]).startswith("variety: ")
    }


def _longest_term(
    chunks: Sequence[tuple[int, int, str]], index: int, weights: Mapping[tuple[str, ...], float], longest: int
) -> tuple[int, float] | None:
    for size in range(min(longest, len(chunks) - index), 0, -1):
        weight = weights.get(tuple(label for _, _, label in chunks[index : index + size]))
        if weight is not None:
            return size, weight
    return None


def _mark(text: str, weight: float, strongest: float) -> str:
    depth = _FAINTEST + _RANGE * abs(weight) / strongest if strongest else _FAINTEST
    side = "for" if weight >= 0 else "against"
    return f'<mark title="{weight:+.2f}" style="background: rgb(var(--vv-{side}) / {depth:.2f})">{escape(text)}</mark>'
