"""The check that says before a deploy whether the old code survives the new schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploys import migrations

ROOT = Path(__file__).resolve().parents[2]
HEAD = "import sqlalchemy as sa\nfrom alembic import op\n\ndef upgrade():\n"


def found(*lines: str) -> list[str]:
    return list(migrations.findings(HEAD + "".join(f"    {line}\n" for line in lines)))


@pytest.mark.parametrize(
    "line",
    [
        'op.create_table("note", sa.Column("id", sa.Integer, primary_key=True), sa.Column("text", sa.Text, nullable=False))',
        'op.add_column("note", sa.Column("text", sa.Text))',
        'op.add_column("note", sa.Column("text", sa.Text, nullable=True))',
        'op.add_column("note", sa.Column("text", sa.Text, nullable=False, server_default=""))',
        'op.create_index("ix", "note", ["text"])',
        'op.alter_column("note", "text", nullable=True)',
        'op.alter_column("note", "text", server_default="x")',
        'op.drop_index("ix")',
        'op.drop_constraint("uq", "note")',
        'op.drop_column("note", "text")  # compatible: nothing reads it since release 3',
        "pass",
    ],
)
def test_what_only_adds_is_fine(line: str) -> None:
    assert found(line) == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('op.drop_column("note", "text")', "line 5: drop_column('note', 'text') takes away a column"),
        ('op.drop_table("note")', "drop_table('note') takes away a table"),
        ('op.rename_table("note", "remark")', "renames a table"),
        ('op.alter_column("note", "text", new_column_name="body")', "renames a column"),
        ('op.alter_column("note", "text", type_=sa.Integer)', "changes a column's type"),
        ('op.alter_column("note", "text", nullable=False)', "refuses rows"),
        ('op.add_column("note", sa.Column("text", sa.Text, nullable=False))', "no server_default"),
        ('op.create_unique_constraint("uq", "note", ["text"])', "refuses rows"),
        ('op.create_index("ix", "note", ["text"], unique=True)', "refuses rows"),
        ('op.create_foreign_key("fk", "note", "user", ["a"], ["b"])', "refuses rows"),
        ('op.execute("DELETE FROM note")', "cannot be judged"),
        ('op.drop_column("note", "text")  # compatible:', "takes away a column"),
    ],
)
def test_what_the_old_code_would_miss_is_named(line: str, said: str) -> None:
    (only,) = found(line)
    assert said in only


def test_batches_and_loops_are_looked_into() -> None:
    lines = (
        'with op.batch_alter_table("note") as batch_op:',
        '    batch_op.drop_column("text")',
        'for name in ("a", "b"):',
        "    op.drop_table(name)",
    )
    assert [line.split(": ")[1].split("(")[0] for line in found(*lines)] == ["drop_column", "drop_table"]


def test_a_table_of_the_same_migration_may_be_narrowed() -> None:
    assert (
        found('op.create_table("note", sa.Column("a", sa.Text))', 'op.create_unique_constraint("uq", "note", ["a"])')
        == []
    )
    assert (
        found('op.create_table("note", sa.Column("a", sa.Text))', 'op.create_index("ix", "note", ["a"], unique=True)')
        == []
    )


def test_downgrades_are_not_looked_at() -> None:
    assert list(migrations.findings(f'{HEAD}    pass\n\ndef downgrade():\n    op.drop_table("note")\n')) == []


def test_only_what_is_new_counts() -> None:
    bad = ["line 5: drop_table('note') takes away a table"]
    old = {"wine": {"0001": bad}}
    assert migrations.refused(old, {"wine": {"0001": bad}}) == []
    assert migrations.refused(old, {"wine": {"0001": bad, "0002": bad}}) == [f"wine/0002: {bad[0]}"]
    assert migrations.refused({}, {"new": {"0001": bad}}) == [f"new/0001: {bad[0]}"]
    assert migrations.refused(None, {"wine": {"0001": bad}}) == [], "nothing old runs"


def test_every_migration_that_ships_is_compatible_or_says_why() -> None:
    apps = [path.name for path in (ROOT / "app").iterdir() if (path / "migrations").is_dir()]
    surveyed = migrations.survey(ROOT, apps)
    assert "core" in surveyed
    assert {app: rows for app, rows in surveyed.items() if any(rows.values())} == {}
