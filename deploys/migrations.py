"""Whether a release's database migrations let the release before go on working.

During a deploy, and after a rollback, the old code runs on the new schema. So a migration may add what the old code does not know, and
may not take away, rename or narrow what it uses. Operations are read from the migration files (Alembic), never run. A migration that looks
dangerous and is not says why on the line of the operation: ``# compatible: nothing reads this column since release 3``.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

# What the old code would miss, by name of Alembic's operation.
LOSSES = {
    "drop_column": "takes away a column",
    "drop_table": "takes away a table",
    "rename_table": "renames a table",
    "create_unique_constraint": "refuses rows that the old code may write",
    "create_check_constraint": "refuses rows that the old code may write",
    "create_exclude_constraint": "refuses rows that the old code may write",
    "create_foreign_key": "refuses rows that the old code may write",
    "execute": "runs SQL that cannot be judged",
    "get_bind": "runs code that cannot be judged",
    "run_async": "runs code that cannot be judged",
}
_ALLOWED = re.compile(r"#\s*compatible:\s*\S")
FOLDERS = ("core",)  # every app has the tables of app.core too


def survey(root: Path, apps: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Return for each app's every migration what in it the old code would not survive.

    Args:
        root: The project's folder.
        apps: Names of the apps that have a database.

    Returns:
        By app and name of the migration file, findings: ``line 14: drop_column('note', 'text') takes away a column``.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for app in sorted({*apps, *FOLDERS}):
        folder = root / "app" / app / "migrations" / "versions"
        rows = {path.stem: list(findings(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.py"))}
        if rows:
            found[app] = rows
    return found


def findings(source: str) -> Iterator[str]:
    """Give what the old code would not survive in the ``upgrade`` of one migration."""
    lines = source.splitlines()
    tree = ast.parse(source)
    upgrade = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade"), None)
    if upgrade is None:
        return
    made = {_text(call.args[0]) for call in _calls(upgrade) if _name(call) == "create_table" and call.args}
    for call in _calls(upgrade):
        reason = _reason(call, made)
        said = lines[call.lineno - 1 : call.end_lineno]
        if reason and not any(_ALLOWED.search(line) for line in said):
            yield f"line {call.lineno}: {_short(call)} {reason}"


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    """Give the calls of operations (``op.x(...)``, ``batch_op.x(...)``) in the order of the file."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    operations = [call for call in calls if isinstance(call.func, ast.Attribute) and "op" in _text(call.func.value)]
    yield from sorted(operations, key=lambda call: call.lineno)


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else ""


def _text(node: ast.AST) -> str:
    return str(node.value) if isinstance(node, ast.Constant) else ast.unparse(node)


def _short(call: ast.Call) -> str:
    """Return the operation as it stands, without its long arguments."""
    arguments = ", ".join(ast.unparse(argument) for argument in call.args if isinstance(argument, ast.Constant))
    return f"{_name(call)}({arguments})"


def _reason(call: ast.Call, made: set[str]) -> str:
    name, keywords = _name(call), {word.arg: word.value for word in call.keywords if word.arg}
    if name == "alter_column":
        return _altered(keywords)
    if name == "add_column":
        return _added(call)
    if name == "create_index":
        unique = keywords.get("unique")
        table = _text(call.args[1]) if len(call.args) > 1 else ""
        narrows = isinstance(unique, ast.Constant) and unique.value and table not in made
        return LOSSES["create_unique_constraint"] if narrows else ""
    if name in LOSSES and len(call.args) > 1 and name.startswith("create_") and _text(call.args[1]) in made:
        return ""  # on a table of this very migration
    return LOSSES.get(name, "")


def _altered(keywords: Mapping[str, ast.expr]) -> str:
    if "new_column_name" in keywords:
        return "renames a column"
    if "type_" in keywords:
        return "changes a column's type"
    nullable = keywords.get("nullable")
    if isinstance(nullable, ast.Constant) and nullable.value is False:
        return "refuses rows that the old code may write"
    return ""


def _added(call: ast.Call) -> str:
    """Return why the old code could not write rows any more: a new column that must be given and has no default."""
    for column in ast.walk(call):
        if isinstance(column, ast.Call) and _text(column.func).endswith("Column"):
            words = {word.arg: word.value for word in column.keywords if word.arg}
            nullable = words.get("nullable")
            if isinstance(nullable, ast.Constant) and nullable.value is False and "server_default" not in words:
                return "wants a value that the old code does not give (no server_default)"
    return ""


def refused(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> list[str]:
    """Return what speaks against a deploy: findings in migrations that the live release does not have.

    Args:
        old: ``migrations`` of the live release's record; None when there is no live release, or its record is gone.
        new: ``migrations`` of the release to deploy.
    """
    if old is None:
        return []
    return [
        f"{app}/{name}: {finding}"
        for app, rows in new.items()
        for name, found in rows.items()
        if name not in old.get(app, {})
        for finding in found
    ]
