"""The part of CloudWatch Logs Insights' query language that our saved queries use: a parser, and what a query finds in given events.

    query    = command { "|" command }                     lines that begin with # are comments
    command  = "fields" named | "filter" expression | "stats" named [ "by" named ] | "sort" name [ "asc" | "desc" ] | "limit" number
    named    = expression [ "as" name ] { "," ... }

Whatever else a query says is an error, with the place.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\]|\\.)*")|(?P<span>\d+[smhd]\b)|(?P<number>\d+(?:\.\d+)?)|(?P<name>@?[A-Za-z_][\w.]*)"""
    r"""|(?P<mark><=|>=|!=|[=<>+*/()\[\],|-]))"""
)
REGEX = re.compile(r"\s*/((?:[^/\\]|\\.)*)/")
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Row = dict[str, Any]
Node = tuple[Any, ...]  # ("name", x) | ("value", x) | ("call", f, args) | (operator, left, right)


class QueryError(ValueError):
    """A query that CloudWatch would refuse, or that says what we do not know."""


@dataclass
class Query:
    """A query: its commands in order, each with its parsed parts."""

    commands: list[tuple[str, Any]]

    def names(self) -> set[str]:
        """Return the fields that it asks of the events: not those that it makes itself."""
        made: set[str] = set()
        asked: set[str] = set()
        for kind, parts in self.commands:
            columns = [*parts[0], *parts[1]] if kind == "stats" else parts if kind == "fields" else []
            nodes = [node for node, _ in columns] or (
                [parts] if kind == "filter" else [("name", parts[0])] if kind == "sort" else []
            )
            asked |= {name for node in nodes for name in _names(node)} - made
            made |= {alias for _, alias in columns if alias}
        return asked


def _names(node: Any) -> Iterable[str]:
    if not isinstance(node, tuple):
        return
    if node[0] == "name":
        yield node[1]
    for part in node[1:]:
        for each in part if isinstance(part, list) else [part]:
            yield from _names(each)


class Parser:
    """Reads one query."""

    def __init__(self, text: str) -> None:
        self.text = "\n".join("" if line.lstrip().startswith("#") else line for line in text.splitlines()).strip()
        self.at = 0

    def fail(self, wanted: str) -> QueryError:
        return QueryError(f"expected {wanted} at: {self.text[self.at :].strip()[:40]!r}")

    def peek(self) -> tuple[str, str]:
        found = TOKEN.match(self.text, self.at)
        if found is None:
            if self.text[self.at :].strip():
                raise self.fail("a word, a number or a text")
            return "end", ""
        kind = str(found.lastgroup)
        return kind, found[kind]

    def take(self, *wanted: str) -> str:
        kind, word = self.peek()
        if wanted and word not in wanted and kind not in wanted:
            raise self.fail(" or ".join(wanted))
        found = TOKEN.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return word

    def taken(self, *words: str) -> str | None:
        return self.take() if self.peek()[1] in words and self.peek()[1] else None

    def query(self) -> Query:
        commands = [self.command()]
        while self.taken("|"):
            commands.append(self.command())
        if self.peek()[0] != "end":
            raise self.fail("| or the end")
        return Query(commands)

    def command(self) -> tuple[str, Any]:
        word = self.take("fields", "filter", "stats", "sort", "limit")
        if word == "filter":
            return word, self.either()
        if word == "sort":
            return word, (self.take("name"), self.taken("asc", "desc") or "desc")
        if word == "limit":
            return word, int(self.take("number"))
        columns = self.columns()
        return word, (columns, self.columns() if self.taken("by") else []) if word == "stats" else columns

    def columns(self) -> list[tuple[Node, str]]:
        found = []
        while True:
            begin = self.at
            node = self.sum()
            found.append((node, self.take("name") if self.taken("as") else self.text[begin : self.at].strip()))
            if not self.taken(","):
                return found

    def either(self) -> Node:
        node = self.both()
        while self.taken("or"):
            node = ("or", node, self.both())
        return node

    def both(self) -> Node:
        node = self.condition()
        while self.taken("and"):
            node = ("and", node, self.condition())
        return node

    def condition(self) -> Node:
        if self.taken("not"):
            return ("not", self.condition())
        if self.peek()[1] == "(":
            before = self.at
            self.take()
            try:
                node = self.either()
                self.take(")")
            except QueryError:
                self.at = before  # a sum in brackets
            else:
                if self.peek()[1] not in {"+", "-", "*", "/", "like", "in", *COMPARE}:
                    return node
                self.at = before
        left = self.sum()
        word = self.taken("like", "in", *COMPARE)
        if word is None:
            return left
        if word == "like":
            regex = REGEX.match(self.text, self.at)
            if regex is None:
                raise self.fail("a regular expression")
            self.at = regex.end()
            re.compile(regex[1])
            return ("like", left, ("value", regex[1].replace("\\/", "/")))
        if word == "in":
            self.take("[")
            values = [self.atom()]
            while self.taken(","):
                values.append(self.atom())
            self.take("]")
            return ("in", left, values)
        return (word, left, self.sum())

    def sum(self) -> Node:
        node = self.product()
        while word := self.taken("+", "-"):
            node = (word, node, self.product())
        return node

    def product(self) -> Node:
        node = self.atom()
        while word := self.taken("*", "/"):
            node = (word, node, self.atom())
        return node

    def atom(self) -> Node:  # noqa: PLR0911 - one for each kind of word
        kind, word = self.peek()
        if word == "(":
            self.take()
            node = self.sum()
            self.take(")")
            return node
        self.take("text", "number", "span", "name", "*")
        if kind == "text":
            return ("value", json.loads(word))
        if kind == "number":
            return ("value", float(word))
        if kind == "span":
            return ("value", int(word[:-1]) * SECONDS[word[-1]])
        if word == "*":
            return ("value", "*")
        if not self.taken("("):
            return ("name", word)
        if word not in {*PLAIN, *AGGREGATE}:
            raise QueryError(f"a function that we do not know: {word}")
        arguments = [self.sum()]
        while self.taken(","):
            arguments.append(self.sum())
        self.take(")")
        return ("call", word, arguments)


def parse(text: str) -> Query:
    """Return a query's commands.

    Raises:
        QueryError: It is none.
    """
    return Parser(text).query()


# ---------------------------------------------------------------- what it finds


def number(value: Any) -> float | None:
    """Return a value as a number; None when it is none."""
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


PLAIN: dict[str, Callable[..., Any]] = {
    "ispresent": lambda value: value is not None,
    "strcontains": lambda text, part: int(part in str(text or "")),
    "floor": lambda value: None if number(value) is None else math.floor(float(value)),
    "bin": lambda stamp, seconds: stamp // (seconds * 1000) * (seconds * 1000),
}


def _percentile(values: Sequence[float], percent: float) -> float | None:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else None


AGGREGATE: dict[str, Callable[..., Any]] = {
    "count": len,
    "count_distinct": lambda values: len(set(values)),
    "sum": sum,
    "avg": lambda values: sum(values) / len(values) if values else None,
    "min": lambda values: min(values, default=None),
    "max": lambda values: max(values, default=None),
    "pct": _percentile,
}


def value(node: Node, row: Row, rows: Sequence[Row] | None = None) -> Any:  # noqa: C901, PLR0911, PLR0912 - one for each kind of node
    """Return what an expression is for an event; with ``rows``, for a group of events."""
    kind, *parts = node
    if kind == "value":
        return parts[0]
    if kind == "name":
        return row.get(parts[0])
    if kind == "call":
        word, arguments = parts
        if word == "bin":
            return PLAIN["bin"](row["@timestamp"], value(arguments[0], row))
        if word in PLAIN:
            return PLAIN[word](*(value(argument, row) for argument in arguments))
        if rows is None:
            raise QueryError(f"{word} outside of stats")
        first, *rest = arguments
        found = [1 if first == ("value", "*") else value(first, each) for each in rows]
        found = [one for one in found if one is not None]
        if word not in {"count", "count_distinct"}:
            found = [one for one in map(number, found) if one is not None]
        return AGGREGATE[word](found, *(value(argument, row) for argument in rest))
    if kind in {"and", "or", "not"}:
        truths = (bool(value(part, row)) for part in parts)
        return all(truths) if kind == "and" else any(truths) if kind == "or" else not next(truths)
    left = value(parts[0], row, rows)
    if kind == "in":
        return any(same("=", left, value(each, row)) for each in parts[1])
    right = value(parts[1], row, rows)
    if kind == "like":
        return left is not None and re.search(right, str(left)) is not None
    if kind in COMPARE:
        return same(kind, left, right)
    if left is None or right is None:
        return None
    if kind == "/":
        return left / right if right else None
    return {"+": operator.add, "-": operator.sub, "*": operator.mul}[kind](float(left), float(right))


def same(word: str, left: Any, right: Any) -> bool:
    """Compare as numbers when both are, else as texts; what is missing is equal to nothing."""
    if left is None or right is None:
        return word == "!=" and (left is None) != (right is None)
    one, other = number(left), number(right)
    return COMPARE[word](one, other) if one is not None and other is not None else COMPARE[word](str(left), str(right))


def run(query: Query, events: Iterable[Row]) -> list[Row]:
    """Return what a query finds in events."""
    rows: list[Row] = [dict(event) for event in events]
    shown: list[str] = []
    for kind, parts in query.commands:
        if kind == "fields":
            for row in rows:
                row.update({alias: value(node, row) for node, alias in parts})
            shown += [alias for _, alias in parts]
        elif kind == "filter":
            rows = [row for row in rows if value(parts, row)]
        elif kind == "limit":
            rows = rows[:parts]
        elif kind == "sort":
            name, order = parts
            rows.sort(
                key=lambda row: (row.get(name) is not None, number(row.get(name)) or 0, str(row.get(name))),
                reverse=order == "desc",
            )
        else:
            made, by = parts
            groups: dict[tuple[Any, ...], list[Row]] = {}
            for row in rows:
                groups.setdefault(tuple(value(node, row) for node, _ in by), []).append(row)
            rows = [
                {
                    **dict(zip((alias for _, alias in by), key, strict=True)),
                    **{alias: value(node, group[0], group) for node, alias in made},
                }
                for key, group in groups.items()
            ]
            shown = [alias for _, alias in [*by, *made]]
    return [{name: row.get(name) for name in shown} for row in rows]
