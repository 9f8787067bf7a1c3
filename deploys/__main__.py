"""``python -m deploys deploy|rollback|status|history|settle`` with the description of the deploy as JSON on standard input.

Standard input stays open for as long as somebody wants the deploy: when it ends, as when Ctrl-C or a closed terminal ends whoever
started it, the deploy is taken back. Progress goes to standard output; the last line is a JSON object with the result.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from types import FrameType

from botocore.exceptions import BotoCoreError, ClientError

from deploys.engine import Engine
from deploys.spec import DeployError, Spec


def main() -> int:
    """Run one command; 0 done, 1 refused or taken back."""
    parser = argparse.ArgumentParser(prog="python -m deploys", description=__doc__)
    parser.add_argument("command", choices=["deploy", "rollback", "status", "history", "settle"])
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
        engine = Engine(spec, say, abort)
        if command in {"deploy", "rollback"}:
            threading.Thread(target=_until_nobody_wants_it, args=(abort,), daemon=True).start()
        result = _run(engine, command)
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
        return {"changed": False, "history": engine.store.history()}
    if command == "settle":
        text = engine.settle_alone()
        return {"changed": bool(text), "msg": text}
    return {"changed": False, **engine.status()}


def _until_nobody_wants_it(abort: threading.Event) -> None:
    """Wait for the end of standard input."""
    while sys.stdin.readline():
        pass
    abort.set()


if __name__ == "__main__":
    sys.exit(main())
