"""``python -m deploys <command>`` with the description of the deploy as JSON on standard input.

Standard input stays open for as long as somebody wants the deploy: when it ends, as when Ctrl-C or a closed terminal ends whoever
started it, the deploy is taken back. Progress goes to standard output; the last line is a JSON object with the result.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from deploys import migrations, releases
from deploys.bake import Baker
from deploys.engine import Engine
from deploys.in_place import InPlace
from deploys.spec import DeployError, Spec
from prober.report import table

COMMANDS = ("deploy", "rollback", "status", "unfinished", "history", "settle", "record", "find", "prune", "bake")


def main() -> int:
    """Run one command; 0 done, 1 refused or taken back."""
    parser = argparse.ArgumentParser(prog="python -m deploys", description=__doc__)
    parser.add_argument("command", choices=[*COMMANDS])
    command = parser.parse_args().command
    abort = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        abort.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)

    def say(line: str) -> None:
        try:
            print(line, flush=True)
        except OSError:  # nobody listens any more; what has begun goes on to a good end
            abort.set()

    try:
        spec = Spec.of(json.loads(sys.stdin.readline()))
        if command in {"deploy", "rollback", "bake"}:
            threading.Thread(target=_until_nobody_wants_it, args=(abort,), daemon=True).start()
        result = (
            _bake(Baker(spec, say, abort))
            if command == "bake"
            else _run((InPlace if spec.in_place else Engine)(spec, say, abort), command)
        )
    except (DeployError, ClientError, BotoCoreError, ValueError) as error:
        say(json.dumps({"failed": True, "msg": str(error)}))
        return 1
    say(json.dumps(result))
    return 0


def _run(engine: Engine, command: str) -> dict[str, object]:
    """Run a command of the engine and return its result."""
    if command == "deploy":
        return {"changed": engine.deploy(), "releases": engine.spec.releases}
    if command == "rollback":
        return {"changed": engine.rollback(), "releases": engine.spec.releases}
    if command == "history":
        rows, now = engine.store.history(), engine.unfinished()["unfinished"]
        return {"changed": False, "history": rows, "text": "\n".join(filter(None, (_table(rows), now)))}
    if command in {"record", "find", "prune"}:
        return _release(engine, command)
    if command == "settle":
        text = engine.settle_alone()
        return {"changed": bool(text), "msg": text}
    return {"changed": False, **(engine.unfinished() if command == "unfinished" else engine.status())}


def _bake(baker: Baker) -> dict[str, object]:
    """Bake images and return the new ones by fleet."""
    made = baker.bake()
    return {"changed": bool(made), "images": made}


def _table(rows: list[dict[str, Any]]) -> str:
    """Lay out the history for people."""
    lines = []
    for row in rows:
        fleets = row["fleets"].items()
        moved = ", ".join(f"{name}: {fleet['to']} {fleet['new']['sha256'][:12]}" for name, fleet in fleets)
        seen = row["seen"] or {}
        requests = f"{seen['failed']} of {seen['sent']}" if seen else ""
        lines.append([row["began"], row["what"], moved, row["by"], row["ended"], requests, row["reason"][:80]])
    headings = ["began", "what", "release", "by", "ended", "failed requests", "reason"]
    return table(headings, lines) if lines else "nothing was deployed here yet"


def _release(engine: Engine, command: str) -> dict[str, object]:
    """Write, find or prune releases; the options are those of the description."""
    given, store = engine.spec.options, engine.store
    if command == "record":
        root = Path(__file__).resolve().parents[1]
        text = releases.version(root, allow_dirty=bool(given.get("allow_dirty")))
        schema = migrations.survey(root, given.get("apps", []))
        made, new = releases.record(store, given["fleets"], version_text=text, by=engine.spec.operator, schema=schema)
        return {"changed": new, "record": made}
    if command == "find":
        return {"changed": False, "record": releases.find(store, str(given["release"]))}
    running = [engine.cloud.release_of(group) for fleet in engine.spec.fleets for group in fleet.groups.values()]
    gone = releases.prune(store, int(given.get("keep", 10)), [one.key for one in running if one])
    return {"changed": bool(gone), "gone": gone}


def _until_nobody_wants_it(abort: threading.Event) -> None:
    """Wait for the end of standard input."""
    while sys.stdin.readline():
        pass
    abort.set()


if __name__ == "__main__":
    sys.exit(main())
