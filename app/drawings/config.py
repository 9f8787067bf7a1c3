"""What an admin can change: the percentile above which a drawing counts as unusual, for all age groups or for one.

Scores are never computed again: every analysis keeps its score, and each model version keeps the scores its percentiles come from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sqlalchemy import case, func, select, update
from sqlalchemy.orm import Session

from app.drawings.model import Doubles, threshold_of
from app.drawings.tables import AgeGroup, Analysis, Setting
from app.drawings.training import PERCENTILE

_NAME: Final = "threshold"


@dataclass(frozen=True)
class Thresholding:
    """The percentile in use, and those of single age groups."""

    percentile: float
    groups: Mapping[str, float]

    def of(self, group: str) -> float:
        """The percentile of an age group."""
        return self.groups.get(group, self.percentile)


def read(db: Session, *, lock: str = "") -> Thresholding:
    """The thresholds in use. `lock` holds them still until the transaction ends: "share" for who uses them, "change" for who changes."""
    asked = select(Setting).where(Setting.name == _NAME)
    if lock and db.get_bind().dialect.name == "postgresql":  # SQLite's writers take turns anyway
        asked = asked.with_for_update(read=lock == "share")
    row = db.scalar(asked)
    if row is None:
        return Thresholding(PERCENTILE, {})
    told: dict[str, Any] = json.loads(row.value)
    return Thresholding(float(told["percentile"]), {str(key): float(value) for key, value in told["groups"].items()})


def write(db: Session, wanted: Thresholding) -> int:
    """Use these thresholds from now on, also for analyses that are there; returns how many verdicts changed."""
    read(db, lock="change")
    value = json.dumps({"percentile": wanted.percentile, "groups": dict(wanted.groups)})
    row = db.get(Setting, _NAME)
    if row is None:
        db.add(Setting(name=_NAME, value=value))
    else:
        row.value = value
    changed = 0
    for group in db.scalars(select(AgeGroup)):
        limit = threshold_of(scores_of(group), wanted.of(group.name))
        mine = (Analysis.model_version == group.model_version, Analysis.age_group == group.name)
        changed += int(
            db.scalar(select(func.count()).where(*mine, Analysis.is_anomaly != (Analysis.anomaly_score > limit))) or 0
        )
        db.execute(update(Analysis).where(*mine).values(threshold=limit, is_anomaly=Analysis.anomaly_score > limit))
    return changed


def scores_of(group: AgeGroup) -> Doubles:
    """The sorted scores that a group's percentiles come from."""
    return np.frombuffer(group.scores, dtype=np.float64)


def effect(db: Session, wanted: Thresholding, version: str) -> list[dict[str, Any]]:
    """What thresholds would mean: for each age group of the model in service its limit, and how many analyses lie above."""
    told = []
    for group in db.scalars(select(AgeGroup).where(AgeGroup.model_version == version).order_by(AgeGroup.age_min)):
        percentile = wanted.of(group.name)
        count, above = 0, 0
        for every in db.scalars(select(AgeGroup).where(AgeGroup.name == group.name)):
            limit = threshold_of(scores_of(every), percentile)
            row = db.execute(
                select(func.count(), func.sum(case((Analysis.anomaly_score > limit, 1), else_=0))).where(
                    Analysis.model_version == every.model_version, Analysis.age_group == every.name
                )
            ).one()
            count, above = count + int(row[0]), above + int(row[1] or 0)
        told.append(
            {
                "age_group": group.name,
                "percentile": percentile,
                "threshold": round(threshold_of(scores_of(group), percentile), 6),
                "analyses": count,
                "anomalies": above,
            }
        )
    return told
