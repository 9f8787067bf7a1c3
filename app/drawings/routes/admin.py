"""Configuration, models, usage, backups. All of it needs a login, but for the subjects and the counting of page views."""

from typing import Annotated, Any, Final

from alembic.runtime.migration import MigrationContext
from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request
from sqlalchemy import select

from app.core import artefacts, database, job, metrics, migrate
from app.drawings import config, dataset, service, usage
from app.drawings.backups import BackupError, parse_time
from app.drawings.context import served
from app.drawings.model import threshold_of
from app.drawings.routes.drawings import Parts
from app.drawings.schemas import (
    ActiveChange,
    AgeGroupOut,
    AgeGroups,
    BackupOut,
    Backups,
    Config,
    ConfigChange,
    MigrationInfo,
    MigrationLine,
    ModelVersion,
    PageView,
    Performance,
    Restored,
    RestoreRequest,
    Spread,
    Subject,
    Sufficiency,
    SufficiencyAnswer,
    ThresholdChange,
    Thresholds,
    Training,
    TrainRequest,
    UsageAnswer,
    Verified,
)
from app.drawings.store import Served
from app.drawings.subjects import NAMES, group_of
from app.drawings.tables import AgeGroup
from app.drawings.training import AGES, MIN_SAMPLES, Samples, spans

TRAINING: Final = "app.drawings.train"
InService = Annotated[Served, Depends(served)]
GroupName = Annotated[str, Path(pattern=r"^[0-9.]{1,4}-[0-9.]{1,4}$", description="such as 5-6")]
BackupId = Annotated[str, Path(max_length=60)]
NO_GROUP: Final[dict[int | str, Any]] = {404: {"description": "There is no such age group"}}
NO_BACKUP: Final[dict[int | str, Any]] = {404: {"description": "There is no such backup"}}

configuration = APIRouter(prefix="/config", tags=["configuration"])
models = APIRouter(prefix="/models", tags=["models"])
measures = APIRouter(prefix="/metrics", tags=["metrics"])
backups = APIRouter(prefix="/backup", tags=["backup"])
databases = APIRouter(prefix="/database", tags=["backup"])
ROUTERS: Final = (configuration, models, measures, backups, databases)


@configuration.get("/", summary="What is configured")
def read_config() -> Config:
    """The percentile above which a drawing counts as unusual, and those of single age groups."""
    with database.session(read_only=True) as db:
        now = config.read(db)
    return Config(threshold_percentile=now.percentile, group_percentiles=dict(now.groups))


@configuration.put("/", summary="Configure", responses=NO_GROUP)
def write_config(asked: ConfigChange, model: InService) -> Config:
    """Verdicts of analyses that are there follow at once; no score is computed again."""
    _known(model, asked.group_percentiles or ())
    with database.session() as db:
        now = config.read(db, lock="change")
        wanted = config.Thresholding(
            now.percentile if asked.threshold_percentile is None else asked.threshold_percentile,
            now.groups if asked.group_percentiles is None else asked.group_percentiles,
        )
        config.write(db, wanted)
    return Config(threshold_percentile=wanted.percentile, group_percentiles=dict(wanted.groups))


@configuration.get(
    "/threshold", summary="The thresholds in use, or the effect of another percentile", responses=NO_GROUP
)
def thresholds(
    model: InService,
    percentile: Annotated[
        float | None, Query(ge=50, le=99.9, description="what this one would mean; nothing is saved")
    ] = None,
    age_group: Annotated[str | None, Query(max_length=20)] = None,
) -> Thresholds:
    """For each age group: its threshold, and how many analyses lie above."""
    with database.session(read_only=True) as db:
        wanted = config.read(db)
        if percentile is not None:
            wanted = _changed(wanted, percentile, age_group, model)
        return _thresholds(wanted, config.effect(db, wanted, model.version))


@configuration.put("/threshold", summary="Change the threshold", responses=NO_GROUP)
def change_threshold(asked: ThresholdChange, model: InService) -> Thresholds:
    """For all age groups, or for one."""
    with database.session() as db:
        wanted = _changed(config.read(db, lock="change"), asked.percentile, asked.age_group, model)
        config.write(db, wanted)
        return _thresholds(wanted, config.effect(db, wanted, model.version))


def _changed(now: config.Thresholding, percentile: float, group: str | None, model: Served) -> config.Thresholding:
    if group is None:
        return config.Thresholding(percentile, now.groups)
    _known(model, (group,))
    return config.Thresholding(now.percentile, {**now.groups, group: percentile})


def _known(model: Served, names: Any) -> None:
    there = [group.name for group in model.model.groups]
    for name in names:
        if name not in there:
            raise HTTPException(404, f"There is no age group {str(name)[:20]!r}; there are {', '.join(there)}.")


def _thresholds(wanted: config.Thresholding, groups: list[dict[str, Any]]) -> Thresholds:
    return Thresholds.model_validate(
        {
            "percentile": wanted.percentile,
            "groups": groups,
            "anomalies": sum(group["anomalies"] for group in groups),
            "analyses": sum(group["analyses"] for group in groups),
        }
    )


@configuration.get("/subjects", summary="What a drawing can show")
def subjects() -> list[Subject]:
    """52 of them, by index."""
    return [
        Subject.model_validate({"index": index, "name": name, "group": group_of(index)})
        for index, name in enumerate(NAMES)
    ]


@models.get("/age-groups", summary="The age groups of the model in service")
def age_groups(model: InService) -> AgeGroups:
    """With what the training report says about each."""
    with database.session(read_only=True) as db:
        active = service.active_groups(db, model.version)
        wanted = config.read(db)
    told = {str(row["age_group"]): row for row in model.report["age_groups"]}
    return AgeGroups(
        model_version=model.version,
        trained_at=str(model.report["trained_at"]),
        source=str(model.report["data"]["source"]),
        groups=[
            AgeGroupOut(
                name=group.name,
                age_min=group.age_min,
                age_max=group.age_max,
                samples=group.samples,
                method=group.rebuilder.method,
                active=group.name in active,
                threshold=round(threshold_of(group.scores, wanted.of(group.name)), 6),
                pca_auc=float(told[group.name]["pca_auc"]),
                autoencoder_auc=float(told[group.name]["autoencoder_auc"]),
            )
            for group in model.model.groups
        ],
    )


@models.put("/age-groups/{name}", summary="Switch an age group on or off", responses=NO_GROUP)
def switch(name: GroupName, asked: ActiveChange, model: InService) -> AgeGroups:
    """The next nearest one judges meanwhile."""
    _known(model, (name,))
    with database.session() as db:
        for row in db.scalars(select(AgeGroup).where(AgeGroup.name == name)):
            row.active = asked.active
    return age_groups(model)


@models.get("/versions", summary="All stored models, newest first")
def versions(parts: Parts) -> list[ModelVersion]:
    """With the reason when one was refused."""
    return [ModelVersion(**row) for row in parts.store.versions()]


@models.post("/train", status_code=202, summary="Train anew", responses={409: {"description": "A training is running"}})
def train(parts: Parts, asked: TrainRequest | None = None) -> Training:
    """On the operator's normal drawings and generated ones; the new model goes into service by itself."""
    generated = asked is not None and asked.generated_only
    try:
        progress = job.start(parts.settings.state_dir, TRAINING, *(("--generated",) if generated else ()))
    except job.Busy as error:
        raise HTTPException(409, str(error)) from error
    return Training(**vars(progress))


@models.get("/train", summary="How far the training is")
def training(parts: Parts) -> Training:
    """Or how the last one ended."""
    return Training(**vars(job.read_progress(parts.settings.state_dir)))


@models.get("/data-sufficiency", summary="Whether the operator's drawings are enough")
def sufficiency(parts: Parts) -> SufficiencyAnswer:
    """For each age group."""
    return _sufficiency(parts.encoder.sha256)


@models.get("/data-sufficiency/{name}", summary="The same for one age group", responses=NO_GROUP)
def sufficiency_of(name: GroupName, parts: Parts) -> Sufficiency:
    """Which is one of the eight before merging."""
    found = next((row for row in _sufficiency(parts.encoder.sha256).groups if row.age_group == name), None)
    if found is None:
        raise HTTPException(
            404, f"There is no age group {name!r}; there are {', '.join(f'{low:g}-{high:g}' for low, high in AGES)}."
        )
    return found


def _sufficiency(encoder: str) -> SufficiencyAnswer:
    with database.session(read_only=True) as db:
        own: Samples = dataset.operators(db, encoder)
    alone = spans(own.ages)
    rows = []
    for low, high in AGES:
        count = int(((own.ages >= low) & (own.ages < high)).sum())
        merged = next((span.name for span in alone if span.age_min <= low and high <= span.age_max), None)
        name = f"{low:g}-{high:g}"
        if count >= MIN_SAMPLES:
            advice = "Enough: this age group learns from your drawings alone."
        elif count:
            advice = f"{MIN_SAMPLES - count} more normal drawings are needed; until then generated ones fill up."
        else:
            advice = "No drawings of your own yet: this age group learns from generated ones."
        rows.append(
            Sufficiency(
                age_group=name,
                own_drawings=count,
                needed=MIN_SAMPLES,
                sufficient=count >= MIN_SAMPLES,
                merged_into=merged if merged != name else None,
                advice=advice,
            )
        )
    return SufficiencyAnswer(groups=rows, trainable=[span.name for span in alone])


@measures.post("/page-view", status_code=204, summary="A screen was opened")
def page_view(request: Request, asked: PageView) -> None:
    """Counted by page, day and country; the session only by a hash that is forgotten with the day."""
    with database.session() as db:
        usage.view(db, asked.page, asked.session, usage.country_of(request.headers))
    usage.page_views.labels(asked.page).inc()


@measures.get("/usage", summary="How much the app is used")
def read_usage(days: Annotated[int, Query(ge=1, le=366)] = 30) -> UsageAnswer:
    """By day, page and country; from the database, so over all releases."""
    with database.session(read_only=True) as db:
        return UsageAnswer.model_validate(usage.told(db, days))


@measures.get("/performance", summary="How well it runs")
def performance() -> Performance:
    """Over all workers, since this release started."""
    return Performance(
        requests=int(metrics.distribution("ResponseTime").count),
        errors=int(metrics.total("ErrorCount")),
        response_seconds=_spread("ResponseTime"),
        analyses=int(metrics.total("AnalysisCount")),
        anomalies=int(metrics.total("AnalysisCount", lambda labels: labels.get("AnomalyDetected") == "true")),
        processing_seconds=_spread("ProcessingTime"),
    )


def _spread(name: str) -> Spread:
    found = metrics.distribution(name)
    return Spread(count=found.count, mean=found.mean, p50=found.quantile(0.5), p95=found.quantile(0.95))


@backups.get("/", summary="All backups, newest first")
def list_backups(parts: Parts) -> Backups:
    """Each can be restored."""
    return Backups(backups=[_backup(one) for one in parts.keeper.list()], every_hours=parts.settings.backup_hours)


@backups.post("/", status_code=201, summary="Back the database up now")
def make_backup(parts: Parts) -> BackupOut:
    """A consistent snapshot of every table, sealed, opened again and compared before it counts."""
    try:
        return _backup(parts.keeper.make("manual"))
    except BackupError as error:
        raise HTTPException(503, str(error)) from error


@backups.post(
    "/restore",
    summary="Restore a backup",
    responses={**NO_BACKUP, 400: {"description": "No time, or another environment's"}},
)
def restore(parts: Parts, asked: RestoreRequest) -> Restored:
    """By its id, or the newest at or before a time. A safety copy is made first; all rows are replaced, or none."""
    try:
        at = parse_time(asked.at) if asked.at is not None else None
    except BackupError as error:
        raise HTTPException(400, str(error)) from error
    if asked.backup_id is None and at is None:
        raise HTTPException(400, "Say which backup: its backup_id, or a time in at.")
    one = _find(parts, asked.backup_id, at)
    try:
        safety, snapshot = parts.keeper.restore(one)
    except BackupError as error:
        raise HTTPException(400, str(error)) from error
    return Restored(backup_id=one.id, safety_copy=safety.id, rows=snapshot.total, tables=snapshot.rows)


@backups.get("/{backup_id}", summary="One backup", responses=NO_BACKUP)
def one_backup(parts: Parts, backup_id: BackupId) -> BackupOut:
    """What it holds, table by table."""
    return _backup(_find(parts, backup_id))


@backups.post("/{backup_id}/verify", summary="Whether a backup can be restored", responses=NO_BACKUP)
def verify(parts: Parts, backup_id: BackupId) -> Verified:
    """Opens it and compares every table's rows with what was noted when it was made."""
    one = _find(parts, backup_id)
    try:
        snapshot = parts.keeper.verify(one)
    except BackupError as error:
        return Verified(backup_id=one.id, good=False, rows=0, problem=str(error))
    return Verified(backup_id=one.id, good=True, rows=snapshot.total, problem=None)


def _find(parts: Any, identity: str | None, at: Any = None) -> artefacts.Version:
    try:
        found: artefacts.Version = parts.keeper.find(identity, at)
    except BackupError as error:
        raise HTTPException(404, f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    return found


def _backup(one: artefacts.Version) -> BackupOut:
    return BackupOut(
        id=one.id,
        created_at=service.moment(one.created.timestamp()),
        reason=str(one.meta["reason"]),
        size_bytes=one.size,
        sha256=one.sha256,
        rows=int(one.meta["rows"]),
        tables=dict(one.meta["tables"]),
        environment=str(one.meta["environment"]),
    )


@databases.get("/migration-info", summary="Where the database stands")
def migration_info(parts: Parts) -> MigrationInfo:
    """Current and newest revision of each line of migrations."""
    lines = migrate.histories(parts.settings.app)
    waiting = migrate.pending(parts.settings.database_url, lines)
    told = []
    with database.session(read_only=True) as db:
        for line in lines:
            seen = MigrationContext.configure(db.connection(), opts={"version_table": line.version_table})
            told.append(
                MigrationLine(
                    name=line.name,
                    current=seen.get_current_revision(),
                    head=line.scripts().get_current_head(),
                    pending=[step.partition(": ")[2] for step in waiting if step.startswith(f"{line.name}: ")],
                )
            )
        dialect = db.get_bind().dialect.name
    return MigrationInfo(dialect=dialect, up_to_date=not waiting, lines=told)
