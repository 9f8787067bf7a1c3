"""An analysis as a file to keep: a picture, a page, a table, data, a web page. Gone after a day."""

import csv
import html
import io
import json
import textwrap
import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

from PIL import Image, ImageDraw, ImageFont
from sqlalchemy import select

from app.core import database
from app.core.storage import Storage
from app.drawings import pictures
from app.drawings.schemas import DISCLAIMER
from app.drawings.tables import Export

MEDIA: Final = {
    "png": "image/png",
    "pdf": "application/pdf",
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "html": "text/html; charset=utf-8",
}
_WRITING_SECONDS: Final = 3600
_PAGE: Final = (1240, 1754)  # A4 at 150 dots an inch


@dataclass(frozen=True)
class Material:
    """What a file is made of: the answer of the API, the drawing, and the drawing with its heat map."""

    answer: Mapping[str, Any]
    image: Image.Image
    overlay: Image.Image


def make(storage: Storage, analysis: str, form: str, material: Material, hours: float) -> Export:
    """Make a file and keep it for some hours."""
    data = _MAKERS[form](material)
    identity, now = uuid4().hex, time.time()
    row = Export(
        id=identity,
        analysis_id=analysis,
        format=form,
        storage_key=f"exports/{identity}.{form}",
        size_bytes=len(data),
        created_at=now,
        expires_at=now + hours * 3600,
    )
    storage.put(row.storage_key, data)
    with database.session() as db:
        db.add(row)
    return row


def sweep(storage: Storage) -> int:
    """Delete the files whose time is over, and those that no row knows; returns how many."""
    now = time.time()
    with database.session() as db:
        over = {row.storage_key: row for row in db.scalars(select(Export).where(Export.expires_at <= now))}
        for row in over.values():
            db.delete(row)
        kept = set(db.scalars(select(Export.storage_key)))
    count = 0
    for info in list(storage.list("exports/")):
        # a file that was just written has no row yet
        if info.key in over or (info.key not in kept and now - info.modified.timestamp() > _WRITING_SECONDS):
            storage.delete(info.key)
            count += 1
    return count


def _rows(answer: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the tables say, name by name."""
    drawing, analysis = answer["drawing"], answer["analysis"]
    return [
        ("File", str(drawing["filename"])),
        ("Age", f"{drawing['age_years']:g} years"),
        ("Subject", str(drawing["subject"])),
        ("Verdict", "unusual for this age" if analysis["is_anomaly"] else "within what is usual"),
        ("More different than", f"{analysis['normalized_score']:.0f} of 100 normal drawings"),
        ("Confidence", f"{analysis['confidence']:.0%}"),
        ("What speaks loudest", str(analysis["anomaly_attribution"])),
        ("Score / threshold", f"{analysis['anomaly_score']:.3f} / {analysis['threshold']:.3f}"),
        ("Compared with", f"age group {analysis['age_group']}"),
        ("Model", f"{analysis['model_version']}, {analysis['method_used']}"),
        ("Analysed", str(analysis["analysis_timestamp"])),
    ]


def _png(material: Material) -> bytes:
    return pictures.png(material.overlay)


def _json(material: Material) -> bytes:
    return json.dumps(material.answer, indent=1, ensure_ascii=False).encode()


def _csv(material: Material) -> bytes:
    out = io.StringIO()
    drawing, analysis = material.answer["drawing"], material.answer["analysis"]
    fields = {f"drawing_{key}": value for key, value in drawing.items()} | {
        f"analysis_{key}": value for key, value in analysis.items()
    }
    writer = csv.writer(out)
    writer.writerow(fields)
    writer.writerow(_safe(value) for value in fields.values())
    return out.getvalue().encode()


def _safe(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets a quote before it."""
    return f"'{value}" if isinstance(value, str) and value[:1] in {"=", "+", "-", "@", "\t", "\r"} else value


def _html(material: Material) -> bytes:
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in _rows(material.answer)
    )
    said = html.escape(material.answer["interpretability"]["explanation_text"])
    shown = "".join(
        f'<figure><img alt="{alt}" src="data:image/png;base64,{b64encode(pictures.png(image)).decode()}">'
        f"<figcaption>{alt}</figcaption></figure>"
        for alt, image in (
            ("The drawing", pictures.thumbnail(material.image, 640)),
            ("What adds to the score", material.overlay),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Analysis of a drawing</title><style>"
        "body{font:16px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem}"
        "figure{display:inline-block;margin:0 1rem 1rem 0;max-width:24rem}img{max-width:100%;border:1px solid #ccc;border-radius:8px}"
        "th{text-align:left;padding-right:1.5rem;vertical-align:top}p.note{border-left:4px solid #999;padding-left:1rem}</style></head>"
        f"<body><h1>Analysis of a drawing</h1><p>{said}</p>{shown}<table>{rows}</table>"
        f'<p class="note">{html.escape(DISCLAIMER)}</p></body></html>'
    ).encode()


def _pdf(material: Material) -> bytes:
    page = Image.new("RGB", _PAGE, "white")
    draw = ImageDraw.Draw(page)
    title, body, small = (ImageFont.load_default(size) for size in (44, 26, 22))
    draw.text((90, 90), "Analysis of a drawing", fill="#22261f", font=title)
    y = _wrapped(draw, material.answer["interpretability"]["explanation_text"], (90, 170), body, 84)
    for place, image in enumerate((pictures.thumbnail(material.image, 500), pictures.thumbnail(material.overlay, 500))):
        left = 90 + place * 540
        page.paste(image.convert("RGB"), (left, y + 20))
        draw.rectangle((left - 1, y + 19, left + image.width, y + 20 + image.height), outline="#bbbbbb")
    y += 560
    for name, value in _rows(material.answer):
        draw.text((90, y), name, fill="#555555", font=small)
        y = max(y + 38, _wrapped(draw, value, (420, y), small, 60))
    _wrapped(draw, DISCLAIMER, (90, y + 30), small, 96)
    out = io.BytesIO()
    page.save(out, "PDF", resolution=150.0, title="Analysis of a drawing")
    return out.getvalue()


def _wrapped(draw: ImageDraw.ImageDraw, said: str, at: tuple[int, int], font: Any, width: int) -> int:
    """Write lines and return the y below them."""
    x, y = at
    for line in textwrap.wrap(said, width):
        draw.text((x, y), line, fill="#22261f", font=font)
        y += int(font.size * 1.45)
    return y


_MAKERS: Final[dict[str, Callable[[Material], bytes]]] = {
    "png": _png,
    "pdf": _pdf,
    "csv": _csv,
    "json": _json,
    "html": _html,
}
