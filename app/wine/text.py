"""From a note to words and character n-grams.

Nothing here needs a download. The tokenizer is a regular expression (what NLTK calls a RegexpTokenizer), so that a serving
process need not import NLTK. Two things come from NLTK when training asks for them: its Snowball stemmer (no data needed) and
its stop word list (used when the host has the corpus, else the list below). What was used is written into the model and the
model is served with exactly that.
"""

import os
import re
import sys
import unicodedata
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

_WORD: Final = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+")
_EDGES: Final = re.compile(r"^[\W_]+|[\W_]+$")
_STEMS_KEPT: Final = 50_000

CHAR_SIZES: Final = (3, 4, 5)
"""Lengths of the character n-grams."""

STOP_WORDS: Final = frozenset(
    """a about above after again against all also am an and any are as at be because been before being below between both
    but by can could did do does doing down during each even few for from further get gets had has have having he her here
    hers him his how i if in into is isn't it it's its itself just like made make makes many may me more most much my no nor
    not now of off on once one only or other our out over own quite rather s same she should so some still such t than that
    that's the their them then there there's these they this those though through to too toward under until up upon very was
    we well were what when where which while who why will with within without would yet you you'll your""".split()
)
"""Words that say nothing about a wine; what the explanation and the test for gibberish leave out."""


@dataclass(frozen=True)
class Backend:
    """How a model reads text; recorded in the model. `stemmer` is `none` or `snowball`, `stop_words` names their source."""

    tokenizer: str = "regexp"
    stemmer: str = "none"
    stop_words: str = "built-in"

    def as_dict(self) -> dict[str, str]:
        """For the model's description."""
        return {"tokenizer": self.tokenizer, "stemmer": self.stemmer, "stop_words": self.stop_words}


def fold(text: str) -> str:
    """Lower case, accents stripped: `Grüner` and `GRUNER` are one word."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text.lower().replace("’", "'"))
    return "".join(character for character in decomposed if not unicodedata.combining(character))


def words(folded: str, stem: Callable[[str], str] | None = None) -> list[str]:
    """The words and numbers of a folded text."""
    found = _WORD.findall(folded)
    return [stem(word) for word in found] if stem else found


def content_words(found: Iterable[str], stops: frozenset[str]) -> set[str]:
    """The words that say something: no stop words, numbers or very short ones."""
    return {word for word in found if word not in stops and len(word) > 2 and word.isalpha()}


def chunk_label(chunk: str) -> str:
    """A stretch between spaces as people would name it: `cherry,` is `cherry`."""
    return _EDGES.sub("", chunk) or chunk


def char_ngrams(chunk: str) -> Iterator[str]:
    """Character n-grams inside one stretch between spaces, padded with a space on both sides (as `char_wb` does)."""
    padded = f" {chunk} "
    length = len(padded)
    for size in CHAR_SIZES:
        if length <= size:  # the whole stretch, once
            yield padded
            return
        for start in range(length - size + 1):
            yield padded[start : start + size]


def stemmer(name: str) -> Callable[[str], str] | None:
    """The stemmer that a backend names; NLTK is imported only when there is one."""
    if name == "none":
        return None
    if name != "snowball":
        raise ValueError(f"stemmer {name!r}: expected none or snowball")
    from nltk.stem.snowball import SnowballStemmer  # noqa: PLC0415 - seconds and 150 MB that most processes never need

    stem: Callable[[str], str] = lru_cache(maxsize=_STEMS_KEPT)(SnowballStemmer("english").stem)
    return stem


def stop_words() -> tuple[frozenset[str], str]:
    """Stop words and where they come from: NLTK's corpus when this host has it, ours otherwise."""
    for folder in nltk_folders():
        listed = _english_stop_words(folder)
        if listed:
            return STOP_WORDS | listed, "nltk"
    return STOP_WORDS, "built-in"


def nltk_folders() -> list[Path]:
    """Where NLTK looks for its data, without importing it (that takes seconds and 200 MB)."""
    given = [Path(part) for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
    shared = [
        Path(sys.prefix) / "nltk_data",
        Path(sys.prefix) / "share" / "nltk_data",
        Path(sys.prefix) / "lib" / "nltk_data",
    ]
    system = [Path(part) / "nltk_data" for part in ("/usr/share", "/usr/local/share", "/usr/lib", "/usr/local/lib")]
    return [*given, *shared, *system]


def _english_stop_words(folder: Path) -> frozenset[str]:
    """One word a line, unpacked or as the archive that the downloader leaves; empty when it is not there."""
    text = ""
    try:
        plain, packed = folder / "corpora/stopwords/english", folder / "corpora/stopwords.zip"
        if plain.is_file():
            text = plain.read_text(encoding="utf-8")
        elif packed.is_file():
            with zipfile.ZipFile(packed) as archive:
                text = archive.read("stopwords/english").decode()
    except (OSError, KeyError, UnicodeDecodeError, zipfile.BadZipFile):
        return frozenset()
    return frozenset(fold(word) for word in text.split())
