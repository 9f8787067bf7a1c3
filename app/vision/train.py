"""Train the models and put them into the storage, from where serving processes take them within seconds.

    python -m app.vision.train                           # all three types, 2,000 dishes: ten minutes on one core
    python -m app.vision.train --types fast --dishes 300 # a quick one
    python -m app.vision.train --starter app/vision/starter

Equal options give equal models. Exit codes: 0 trained, 1 failed, 75 another training is running.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.core.assets import AssetError
from app.core.settings import get_settings
from app.core.storage import StorageError, open_storage
from app.vision import store
from app.vision.model import MODEL_TYPES, ModelType
from app.vision.settings import VisionSettings
from app.vision.training import Options, Trained, TrainingError, train


class Busy(Exception):
    """A training is running already."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Train as the command line says; the exit code."""
    given = _parser().parse_args(arguments)
    settings = get_settings(VisionSettings)
    try:
        with _alone(settings.state_dir):
            return _run(given, settings)
    except Busy as busy:
        print(busy, file=sys.stderr)
        return os.EX_TEMPFAIL


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m app.vision.train", description="Train the vision models.")
    parser.add_argument(
        "--types", nargs="+", choices=MODEL_TYPES, default=list(MODEL_TYPES), help="which (default: all)"
    )
    parser.add_argument("--dishes", type=int, default=Options.dishes, help="how many to draw (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=Options.seed, help="which dishes (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="write the reports as JSON to this file")
    parser.add_argument("--starter", type=Path, help="write the models to this folder, not into the storage")
    return parser


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "training.lock").open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy("A training is running already.") from error
        yield


def _run(given: argparse.Namespace, settings: VisionSettings) -> int:
    began = time.monotonic()

    def tell(share: float, sentence: str) -> None:
        spent = time.monotonic() - began
        left = f", {spent * (1 - share) / share:.0f} s left" if 0 < share < 1 else ""
        print(f"{share:5.1%}  {sentence} ({spent:.0f} s{left})", flush=True)

    types: tuple[ModelType, ...] = tuple(given.types)
    try:
        trained = train(Options(given.dishes, given.seed, types), tell)
        for model_type, one in trained.items():
            where = _write_starter(given.starter, one) if given.starter else _store(settings, one)
            _print_report(model_type, where, one.report)
    except (TrainingError, AssetError, StorageError, OSError) as error:
        print(f"training failed: {error}", file=sys.stderr)
        return 1
    if given.report:
        reports = {model_type: one.report for model_type, one in trained.items()}
        given.report.write_text(json.dumps(reports, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


def _store(settings: VisionSettings, one: Trained) -> str:
    version = store.save(open_storage(settings.storage), one.head, one.report, settings.keep_days)
    return version.key


def _write_starter(folder: Path, one: Trained) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    data, name = one.head.to_bytes(), one.head.model_type
    (folder / f"{name}.npz").write_bytes(data)
    report = {**one.report, "made": hashlib.sha256(data).hexdigest()}
    (folder / f"{name}.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return str(folder / f"{name}.npz")


def _print_report(model_type: str, where: str, report: dict[str, Any]) -> None:
    found = report["metrics"]
    print(f"\n{model_type}: {where}")
    print(f"  {found['pictures']} pictures of dishes it had not seen, drawn with seed {report['data']['seed']}")
    print(
        f"  balanced accuracy {found['balanced_accuracy']:.3f}, ECE {found['ece']:.3f}, log-loss {found['log_loss']:.3f}"
    )
    print(f"  uncertain {found['uncertain']:.1%}; of the others {found['accuracy_when_certain']:.1%} right")
    print("  found: " + ", ".join(f"{level} {share:.1%}" for level, share in found["found_by_level"].items()))
    print(f"  {'':<8}{'called clean':>14}{'called dirty':>14}")
    for name, row in zip(("clean", "dirty"), found["confusion"], strict=True):
        print(f"  {name:<8}{row[0]:>14}{row[1]:>14}")


if __name__ == "__main__":
    sys.exit(main())
