"""What tests of the apps' tables share."""

from sqlalchemy import inspect

from app.core.database import engine


def shape(url: str) -> dict[str, object]:
    """Tables, columns, types, keys and indexes, in words that both databases share."""
    seen = inspect(engine(url))
    words = {"VARCHAR": "text", "TEXT": "text", "BLOB": "bytes", "BYTEA": "bytes", "DOUBLE": "number", "DOUBLE PRECISION": "number",
             "DOUBLE_PRECISION": "number", "FLOAT": "number", "INTEGER": "whole", "BIGINT": "long", "BOOLEAN": "bool"}  # fmt: skip
    return {
        table: {
            "columns": {
                column["name"]: (
                    words[str(column["type"]).split("(")[0]],
                    getattr(column["type"], "length", None),
                    column["nullable"],
                )
                for column in seen.get_columns(table)
            },
            "key": seen.get_pk_constraint(table)["constrained_columns"],
            "foreign": sorted(
                (k["constrained_columns"][0], k["referred_table"], k["options"].get("ondelete"))
                for k in seen.get_foreign_keys(table)
            ),
            "indexes": sorted(
                (i["name"], tuple(i["column_names"]), bool(i["unique"]))
                for i in seen.get_indexes(table)
                if not i.get("duplicates_constraint")
            ),
            "unique": sorted(tuple(c["column_names"]) for c in seen.get_unique_constraints(table)),
        }
        for table in sorted(seen.get_table_names())
    }
