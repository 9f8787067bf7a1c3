"""Words, n-grams, and what comes from NLTK."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tokenize import RegexpTokenizer
from sklearn.feature_extraction.text import CountVectorizer

from app.wine import text
from app.wine.text import Backend, char_ngrams, chunk_label, content_words, fold, stemmer, stop_words, words


def test_case_and_accents_make_no_difference() -> None:
    assert fold("GRÜNER Veltliner, d’Été") == "gruner veltliner, d'ete"
    assert words(fold("Mourvèdre isn't 12% of it")) == ["mourvedre", "isn't", "12", "of", "it"]


def test_the_tokenizer_is_nltks_regexp_tokenizer() -> None:
    note = fold("It's a dry, stone-fruited wine (90% Sémillon); drink 2026–2030.")
    assert words(note) == RegexpTokenizer(text._WORD.pattern).tokenize(note)


@given(st.text(alphabet=st.characters(exclude_characters=" ", categories=("L", "N", "P")), min_size=1, max_size=30))
def test_character_ngrams_are_those_of_char_wb(chunk: str) -> None:
    reference = CountVectorizer(analyzer="char_wb", ngram_range=(3, 5), lowercase=False).build_analyzer()
    if len(chunk.split()) == 1:
        assert sorted(char_ngrams(chunk)) == sorted(reference(chunk))


@pytest.mark.parametrize(
    ("chunk", "label"), [("cherry,", "cherry"), ("(90%)", "90"), ("—", "—"), ("full-bodied.", "full-bodied")]
)
def test_a_stretch_is_named_without_its_punctuation(chunk: str, label: str) -> None:
    assert chunk_label(chunk) == label


def test_the_snowball_stemmer_needs_no_download() -> None:
    code = (
        "import nltk; nltk.data.path.clear()\n"
        "from app.wine.text import stemmer\n"
        "stem = stemmer('snowball'); print(stem('tannins'), stem('blackberries'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tannin", "blackberri"]


def test_an_unknown_stemmer_is_named() -> None:
    with pytest.raises(ValueError, match="'porter2': expected none or snowball"):
        stemmer("porter2")


def test_stop_words_fall_back_when_the_host_has_no_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(text, "nltk_folders", lambda: [tmp_path, tmp_path / "absent"])
    listed, source = stop_words()
    assert source == "built-in"
    assert {"the", "and", "it's"} <= listed
    assert Backend(stop_words=source).as_dict() == {"tokenizer": "regexp", "stemmer": "none", "stop_words": "built-in"}


@pytest.mark.parametrize("packed", [False, True])
def test_stop_words_of_nltk_are_used_when_they_are_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, packed: bool
) -> None:
    corpora = tmp_path / "corpora"
    corpora.mkdir()
    if packed:
        with zipfile.ZipFile(corpora / "stopwords.zip", "w") as archive:
            archive.writestr("stopwords/english", "the\nourselves\n")
    else:
        (corpora / "stopwords").mkdir()
        (corpora / "stopwords" / "english").write_text("the\nourselves\n", encoding="utf-8")
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    listed, source = stop_words()
    assert source == "nltk"
    assert "ourselves" in listed


@pytest.mark.parametrize("name", ["stopwords.zip", "stopwords/english"])
def test_a_damaged_corpus_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    path = tmp_path / "corpora" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\xff\xfe\x00")
    assert text._english_stop_words(tmp_path) == frozenset()


def test_the_folders_are_nltks_own() -> None:
    import nltk

    ours = {str(folder) for folder in text.nltk_folders()}
    theirs = {path for path in nltk.data.path if not path.startswith(str(Path.home()))}
    assert theirs <= ours


def test_content_words_say_something() -> None:
    found = words(fold("This is a very ripe wine from 2019 with an oak note"))
    assert content_words(found, text.STOP_WORDS) == {"ripe", "wine", "oak", "note"}
