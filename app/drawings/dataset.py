"""What a model learns from: drawings that the project's generator makes, and the operator's own that are known to be normal."""

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from app.core.encoder import EMBEDDING, Encoder
from app.drawings import generate, pictures
from app.drawings.subjects import NAMES, index_of
from app.drawings.tables import Drawing, Embedding
from app.drawings.training import AGES, MIN_SAMPLES, Samples

EACH: Final = 160
"""Generated drawings an age group."""

Tell = Callable[[float, str], None]


def generated(
    encoder: Encoder, tell: Tell, *, each: int = EACH, cache: Path | None = None, first_seed: int = 0
) -> Samples:
    """Drawings of every age group by the seeded generator, looked at by the encoder; kept in `cache` for the next training."""
    source = Path(generate.__file__).read_bytes() + f"{each} {first_seed} {encoder.sha256}".encode()
    kept = cache / f"generated-{hashlib.sha256(source).hexdigest()[:16]}.npz" if cache else None
    if kept is not None and (found := _read(kept, encoder.sha256)):
        tell(1.0, "generated drawings are there")
        return found
    embeddings, about, inks = [], [], []
    for number, (low, high) in enumerate(AGES):
        for place in range(each):
            one = specimen(number, first_seed + place, low, high)
            image = generate.drawing(one["seed"], one["age"], one["subject"])
            embeddings.append(encoder.encode([image]).embeddings[0])
            inks.append(pictures.ink(image))
            about.append(one)
            if place % 20 == 0:
                tell((number + place / each) / len(AGES), f"drawing like a child of {low:g} to {high:g}")
    made = _samples(np.array(embeddings), np.array(inks), about, encoder.sha256)
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        part = kept.with_suffix(".part.npz")
        np.savez_compressed(
            part, embeddings=made.embeddings, ink=made.ink, about=np.frombuffer(json.dumps(about).encode(), np.uint8)
        )
        part.replace(kept)
    return made


def specimen(group: int, number: int, low: float, high: float) -> dict[str, Any]:
    """Which drawing is number `number` of an age group: its seed, age and subject."""
    random = np.random.default_rng([number, group])
    return {
        "seed": number * 10 + group,
        "age": round(float(random.uniform(low, high)), 2),
        "subject": generate.DRAWN[number % len(generate.DRAWN)],
    }


def _samples(embeddings: Any, inks: Any, about: list[dict[str, Any]], encoder: str) -> Samples:
    return Samples(
        embeddings=np.asarray(embeddings, dtype=np.float32),
        subjects=np.array([index_of(one["subject"]) for one in about], dtype=np.int64),
        ages=np.array([one["age"] for one in about], dtype=np.float64),
        ink=np.asarray(inks, dtype=np.float64),
        about=about,
        encoder=encoder,
        source="generated drawings",
    )


def _read(path: Path, encoder: str) -> Samples | None:
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return _samples(file["embeddings"], file["ink"], json.loads(file["about"].tobytes()), encoder)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # half a file of a run that was killed: it is made again


def operators(db: Session, encoder: str) -> Samples:
    """The operator's normal drawings: those an expert labelled normal, and imported ones without a label."""
    rows = db.execute(
        select(Drawing, Embedding.visual)
        .join(Embedding, Embedding.drawing_id == Drawing.id)
        .where(
            Embedding.encoder == encoder,
            or_(Drawing.expert_label == "normal", (Drawing.source == "import") & Drawing.expert_label.is_(None)),
        )
        .order_by(Drawing.created_at, Drawing.id)
    ).all()
    about = [{"drawing": one.id, "age": one.age_years, "subject": NAMES[one.subject_index]} for one, _ in rows]
    return Samples(
        embeddings=np.array([np.frombuffer(visual, np.float32) for _, visual in rows], np.float32).reshape(
            -1, EMBEDDING
        ),
        subjects=np.array([one.subject_index for one, _ in rows], dtype=np.int64),
        ages=np.array([one.age_years for one, _ in rows], dtype=np.float64),
        ink=np.array([one.ink for one, _ in rows], dtype=np.float64),
        about=about,
        encoder=encoder,
        source="the operator's drawings",
    )


def together(own: Samples, made: Samples) -> Samples:
    """An age group with enough drawings of the operator learns from those alone; the others also from generated ones."""
    keep_made = np.ones(len(made), dtype=bool)
    for low, high in AGES:
        if int(((own.ages >= low) & (own.ages < high)).sum()) >= MIN_SAMPLES:
            keep_made &= ~((made.ages >= low) & (made.ages < high))
    chosen = np.flatnonzero(keep_made)
    if not len(own):
        return made
    return Samples(
        embeddings=np.concatenate([own.embeddings, made.embeddings[chosen]]),
        subjects=np.concatenate([own.subjects, made.subjects[chosen]]),
        ages=np.concatenate([own.ages, made.ages[chosen]]),
        ink=np.concatenate([own.ink, made.ink[chosen]]),
        about=[*own.about, *(made.about[place] for place in chosen.tolist())],
        encoder=made.encoder,
        source=f"{len(own)} drawings of the operator, {len(chosen)} generated ones" if len(chosen) else own.source,
    )
