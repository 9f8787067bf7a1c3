"""Train a model and put it into the storage, from where serving processes take it within seconds.

    python -m app.drawings.train                 # the operator's drawings and generated ones
    python -m app.drawings.train --generated     # generated ones alone
    python -m app.drawings.train --starter       # write the starter model that a fresh install unpacks

Exit codes: 0 trained, 1 failed, 75 another training is running.
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

from app.core import artefacts, database, job
from app.core.encoder import open_encoder
from app.core.settings import get_settings
from app.core.storage import StorageError, open_storage
from app.drawings import dataset
from app.drawings.model import to_bytes
from app.drawings.settings import DrawingsSettings
from app.drawings.store import ARTEFACT, STARTER
from app.drawings.training import SEED, Samples, TrainingError, train


@dataclass
class _Teller:
    """Prints the progress and publishes it for the screens."""

    folder: Path | None
    began: float
    low: float = 0.0
    high: float = 1.0

    def __call__(self, share: float, sentence: str) -> None:
        whole = self.low + (self.high - self.low) * share
        print(f"{whole:5.0%}  {sentence}", flush=True)
        if self.folder is not None:
            job.write_progress(self.folder, job.Progress("running", whole, sentence, self.began))

    def part(self, low: float, high: float) -> "_Teller":
        """The same for a part of the work."""
        return _Teller(self.folder, self.began, low, high)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app.drawings.train", description="Train the drawings model.")
    parser.add_argument("--generated", action="store_true", help="leave the operator's drawings out")
    parser.add_argument(
        "--each", type=int, default=dataset.EACH, help="generated drawings an age group (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="seed of folds and autoencoder (default: %(default)s)")
    parser.add_argument("--starter", action="store_true", help="write the starter model into the source tree")
    parser.add_argument("--report", type=Path, help="write the report as JSON to this file")
    parser.add_argument("--background", action="store_true", help="give way to other processes")
    given = parser.parse_args(arguments)
    if given.background:
        with contextlib.suppress(OSError):  # the sandbox of a service forbids even this
            os.nice(10)
    settings = get_settings(DrawingsSettings)
    if given.starter:
        return _starter(given)
    try:
        with job.exclusive(settings.state_dir):
            return _run(given, settings)
    except job.Busy as busy:
        print(f"{busy} Its progress is in {settings.state_dir}.", file=sys.stderr)
        return os.EX_TEMPFAIL


def _run(given: argparse.Namespace, settings: DrawingsSettings) -> int:
    began = time.time()
    tell = _Teller(settings.state_dir, began)
    try:
        tell(0.0, "loading the encoder")
        storage = open_storage(settings.storage)
        trained = train(_gather(given, settings, tell.part(0.02, 0.7)), tell.part(0.7, 0.98), seed=given.seed)
        version = artefacts.save(storage, ARTEFACT, to_bytes(trained.model), trained.report)
        artefacts.prune(storage, ARTEFACT, keep_days=settings.keep_days)
    except (TrainingError, StorageError) as error:
        _failed(settings, began, str(error))
        print(f"training failed: {error}", file=sys.stderr)
        return 1
    except BaseException as error:
        _failed(settings, began, f"{type(error).__name__}: see training.log")
        raise
    if given.report:
        given.report.write_text(json.dumps(trained.report, indent=1), encoding="utf-8")
    job.write_progress(
        settings.state_dir, job.Progress("done", 1.0, f"Model {version.id} is ready.", began, time.time(), version.id)
    )
    _print(version.id, version.size, trained.report, time.time() - began)
    return 0


def _gather(given: argparse.Namespace, settings: DrawingsSettings, tell: _Teller) -> Samples:
    encoder = open_encoder("lite0")
    made = dataset.generated(encoder, tell, each=given.each, cache=settings.state_dir / "cache")
    if given.generated:
        return made
    with database.session(read_only=True) as db:
        return dataset.together(dataset.operators(db, encoder.sha256), made)


def _failed(settings: DrawingsSettings, began: float, why: str) -> None:
    job.write_progress(
        settings.state_dir, job.Progress("failed", 0.0, "The training failed.", began, time.time(), error=why)
    )


def _starter(given: argparse.Namespace) -> int:
    began = time.time()
    tell = _Teller(None, began)
    trained = train(
        dataset.generated(open_encoder("lite0"), tell.part(0, 0.7), each=given.each), tell.part(0.7, 1), seed=given.seed
    )
    STARTER.mkdir(exist_ok=True)
    data = to_bytes(trained.model)
    (STARTER / "model.npz").write_bytes(data)
    (STARTER / "report.json").write_text(json.dumps(trained.report, indent=1) + "\n", encoding="utf-8")
    _print("starter", len(data), trained.report, time.time() - began)
    return 0


def _print(version: str, size: int, report: dict[str, Any], seconds: float) -> None:
    print(
        f"\nmodel {version} ({size / 1e6:.1f} MB) in {seconds:.1f} s from {report['data']['used']} drawings: {report['data']['source']}"
    )
    print(f"{'age group':<11}{'drawings':>9}{'threshold':>11}{'method':>13}{'PCA AUC':>9}{'AE AUC':>8}")
    for row in report["age_groups"]:
        print(
            f"{row['age_group']:<11}{row['samples']:>9}{row['threshold']:>11.3f}{row['method']:>13}"
            f"{row['pca_auc']:>9.3f}{row['autoencoder_auc']:>8.3f}"
        )


if __name__ == "__main__":
    sys.exit(main())
