"""Train a model and put it into the storage, from where serving processes take it within seconds.

    python -m app.wine.train                        # the operator's reviews in the storage, else the starter corpus
    python -m app.wine.train --data reviews.csv     # a file
    python -m app.wine.train --if-missing           # only when there is no good model yet

Exit codes: 0 trained (or nothing to do), 1 failed, 75 another training is running.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core import artefacts, job
from app.core.settings import get_settings
from app.core.storage import StorageError, open_storage
from app.wine.dataset import DataError, Dataset, read_file, read_storage
from app.wine.model import to_bytes
from app.wine.settings import WineSettings
from app.wine.store import ARTEFACT, load_or_none
from app.wine.training import SEED, Options, TrainingError, train


@dataclass
class _Teller:
    """Prints the progress and publishes it for the screens."""

    folder: Path
    began: float

    def __call__(self, share: float, sentence: str) -> None:
        print(f"{share:5.0%}  {sentence}", flush=True)
        job.write_progress(self.folder, job.Progress("running", share, sentence, self.began))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; the exit code."""
    given = _parser().parse_args(arguments)
    settings = get_settings(WineSettings)
    if given.background:
        with contextlib.suppress(OSError):  # the sandbox of a service forbids even this
            os.nice(10)
    try:
        with job.exclusive(settings.state_dir, wait=given.if_missing):
            return _run(given, settings)
    except job.Busy as busy:
        print(f"{busy} Its progress is in {settings.state_dir}.", file=sys.stderr)
        return os.EX_TEMPFAIL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.wine.train", description="Train VinoVoyant's model.")
    parser.add_argument("--data", type=Path, help="CSV with country, description, points, price, variety")
    parser.add_argument("--if-missing", action="store_true", help="do nothing when the storage has a good model")
    parser.add_argument("--seed", type=int, default=SEED, help="seed of the folds (default: %(default)s)")
    parser.add_argument(
        "--stemmer", choices=("none", "snowball"), default="none", help="stem words with NLTK (default: none)"
    )
    parser.add_argument("--no-prior", action="store_true", help="do not add the starter notes with a small weight")
    parser.add_argument("--report", type=Path, help="write the report as JSON to this file")
    parser.add_argument("--background", action="store_true", help="give way to other processes")
    return parser


def _run(given: argparse.Namespace, settings: WineSettings) -> int:
    began = time.time()
    tell = _Teller(settings.state_dir, began)
    storage = open_storage(settings.storage)
    if given.if_missing and (served := load_or_none(storage)):
        print(f"model {served.version} is there: nothing to train")
        return 0
    try:
        tell(0.0, "reading the data")
        dataset: Dataset = read_file(given.data) if given.data else read_storage(storage)
        trained = train(dataset, Options(seed=given.seed, stemmer=given.stemmer, prior=not given.no_prior), tell)
        version = artefacts.save(storage, ARTEFACT, to_bytes(trained.model), trained.report)
        artefacts.prune(storage, ARTEFACT, keep_days=settings.keep_days)
    except (DataError, TrainingError, StorageError) as error:
        job.write_progress(
            settings.state_dir,
            job.Progress("failed", 0.0, "The training failed.", began, time.time(), error=str(error)),
        )
        print(f"training failed: {error}", file=sys.stderr)
        return 1
    except BaseException as error:
        job.write_progress(
            settings.state_dir,
            job.Progress(
                "failed",
                0.0,
                "The training failed.",
                began,
                time.time(),
                error=f"{type(error).__name__}: see training.log",
            ),
        )
        raise
    if given.report:
        given.report.write_text(json.dumps(trained.report, indent=1), encoding="utf-8")
    job.write_progress(
        settings.state_dir, job.Progress("done", 1.0, f"Model {version.id} is ready.", began, time.time(), version.id)
    )
    _print_report(version.id, version.size, trained.report, time.time() - began)
    return 0


def _print_report(version: str, size: int, report: dict[str, Any], seconds: float) -> None:
    data, cleaning = report["data"], report["data"]["cleaning"]
    print(f"\nmodel {version} ({size / 1e6:.1f} MB) in {seconds:.1f} s")
    print(f"data: {data['source']}; {data['notes']} notes from {len(report['classes'])} countries")
    print(
        f"dropped: {cleaning['without_text']} without text, {cleaning['without_country']} without country, "
        f"{cleaning['duplicates']} duplicates, {sum(data['countries_left_out'].values())} of rare countries; "
        f"{cleaning['price_filled']} prices filled with the median"
    )
    print(f"{'held-out':<14}{'accuracy':>9}{'macro-F1':>10}{'log-loss':>10}{'ECE':>7}")
    for name, label in (("with_variety", "note + variety"), ("note_only", "note only")):
        row = report["metrics"][name]
        print(f"{label:<14}{row['accuracy']:>9.3f}{row['macro_f1']:>10.3f}{row['log_loss']:>10.3f}{row['ece']:>7.3f}")


if __name__ == "__main__":
    sys.exit(main())
