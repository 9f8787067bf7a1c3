"""Import an operator's own drawings: a folder of pictures and a CSV that tells about them.

    python -m app.drawings.importer /folder --metadata /folder/metadata.csv

Columns: filename, age_years; as you have them: subject, expert_label (normal, concern, severe), drawing_tool, prompt. A picture that
is there already (same bytes) is passed over, so an import that was interrupted is simply run again. A row that cannot be taken is told
with its line and the others go on. Exit codes: 0 all imported, 1 some were refused, 2 nothing could be read.
"""

import argparse
import csv
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sqlalchemy import select

from app.core import database, migrate
from app.core.encoder import open_encoder
from app.core.images import ImageError, read_image
from app.core.settings import get_settings
from app.core.storage import open_storage
from app.drawings.guard import open_data
from app.drawings.service import About, Drawings
from app.drawings.settings import DrawingsSettings
from app.drawings.store import ModelStore
from app.drawings.tables import Drawing

_LABELS: Final = ("normal", "concern", "severe")
_NEEDED: Final = ("filename", "age_years")


class ImportFailed(Exception):
    """Nothing can be imported; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What became of one line: imported, known, or refused with a reason."""

    line: int
    filename: str
    state: str
    reason: str = ""


def run(drawings: Drawings, folder: Path, metadata: Path) -> Iterator[Outcome]:
    """Import line by line. Raises ImportFailed when the CSV cannot be read."""
    with database.session(read_only=True) as db:
        known = set(db.scalars(select(Drawing.sha256).where(Drawing.source == "import")))
    try:
        with metadata.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
            if missing := [name for name in _NEEDED if name not in columns]:
                raise ImportFailed(
                    f"{metadata} has no column {' and '.join(missing)}; it has {', '.join(columns) or 'none'}"
                )
            for row in reader:
                told = {
                    (key or "").strip().lower(): (value or "").strip()
                    for key, value in row.items()
                    if isinstance(value, str)
                }
                yield _one(drawings, folder, told, reader.line_num, known)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ImportFailed(f"cannot read {metadata}: {error}") from error


def _one(drawings: Drawings, folder: Path, told: dict[str, str], line: int, known: set[str]) -> Outcome:
    name = told.get("filename", "")
    try:
        about = _about(told)
        path = (folder / name).resolve()
        if not name or not path.is_relative_to(folder.resolve()) or not path.is_file():
            return Outcome(line, name, "refused", "there is no such file in the folder")
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest in known:
            return Outcome(line, name, "known")
        picture = read_image(data, formats=("PNG", "JPEG", "BMP", "WEBP"), smallest=32)
    except (ValueError, OSError, ImageError) as error:
        return Outcome(line, name, "refused", str(error))
    kept = drawings.keep(data, picture, about)
    drawings.embed(kept, picture.image)
    known.add(digest)
    return Outcome(line, name, "imported")


def _about(told: dict[str, str]) -> About:
    try:
        age = float(told["age_years"].replace(",", "."))
    except ValueError:
        raise ValueError(f"age_years is {told['age_years']!r}, not a number of years") from None
    if not 2 <= age <= 18:
        raise ValueError(f"age_years is {age:g}; expected 2 to 18")
    label = told.get("expert_label", "").lower() or None
    if label is not None and label not in _LABELS:
        raise ValueError(f"expert_label is {label!r}; expected one of {', '.join(_LABELS)}")
    return About(
        filename=told["filename"],
        age_years=age,
        subject=told.get("subject"),
        expert_label=label,
        drawing_tool=told.get("drawing_tool") or None,
        prompt=told.get("prompt") or None,
        source="import",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Import as the command line says; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m app.drawings.importer", description="Import an operator's drawings."
    )
    parser.add_argument("folder", type=Path, help="folder with the pictures")
    parser.add_argument("--metadata", type=Path, help="the CSV (default: metadata.csv in the folder)")
    given = parser.parse_args(arguments)
    settings = get_settings(DrawingsSettings)
    migrate.ensure(settings)
    open_data(settings)
    storage = open_storage(settings.storage)
    encoder = open_encoder("lite0")
    counts = {"imported": 0, "known": 0, "refused": 0}
    try:
        for outcome in run(
            Drawings(storage, ModelStore(storage, encoder.sha256), encoder),
            given.folder,
            given.metadata or given.folder / "metadata.csv",
        ):
            counts[outcome.state] += 1
            if outcome.state == "refused":
                print(f"line {outcome.line}: {outcome.filename or '(no name)'}: {outcome.reason}", file=sys.stderr)
            elif sum(counts.values()) % 50 == 0:
                print(f"{sum(counts.values())} lines", flush=True)
    except ImportFailed as error:
        print(error, file=sys.stderr)
        return 2
    print(", ".join(f"{number} {state}" for state, number in counts.items()))
    return 1 if counts["refused"] else 0


if __name__ == "__main__":
    sys.exit(main())
