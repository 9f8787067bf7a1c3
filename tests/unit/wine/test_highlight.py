"""Marking terms in a visitor's text."""

import re

from app.wine.screens.highlight import marked

TERMS = [
    {"term": "variety: Malbec", "weight": 5.0},
    {"term": "green lentil", "weight": 0.8},
    {"term": "green", "weight": 0.2},
    {"term": "oak", "weight": -0.4},
]


def plain(html: str) -> str:
    return re.sub(r"<[^>]+>", "", html)


def test_terms_are_marked_whatever_their_case_and_punctuation() -> None:
    html = marked("Grëen lentil, then GREEN (oak).", TERMS)
    assert re.findall(r"<mark[^>]*>(.*?)</mark>", html) == ["Grëen lentil,", "GREEN", "(oak)."]
    assert html.count("--vv-for") == 2
    assert html.count("--vv-against") == 1


def test_stronger_terms_are_darker() -> None:
    html = marked("green lentil green", TERMS)
    depths = [float(value) for value in re.findall(r"/ ([0-9.]+)\)", html)]
    assert depths[0] > depths[1]


def test_what_a_visitor_writes_is_text_not_html() -> None:
    html = marked('<script>alert(1)</script> oak" onmouseover="x <b>', TERMS)
    assert "<script" not in html
    assert "<b>" not in html
    assert plain(html) == "&lt;script&gt;alert(1)&lt;/script&gt; oak&quot; onmouseover=&quot;x &lt;b&gt;"


def test_the_text_stays_the_text() -> None:
    text = "Two  spaces,\nand a line with green lentil\tand oak"
    assert plain(marked(text, TERMS)) == text
    assert marked("", TERMS) == ""
    assert marked("nothing known", []) == "nothing known"
