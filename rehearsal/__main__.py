"""``python -m rehearsal up|down|status|fault``: an AWS account on this machine."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

from emulator.world import DOOR, LOG, RehearsalError, Settings
from rehearsal import containers

START = 120  # seconds for moto to load on a busy machine


def ask(settings: Settings, name: str, body: dict[str, Any] | None = None, timeout: float = 30) -> Any:
    """Call the running cloud; None when none runs."""
    request = urllib.request.Request(f"{settings.endpoint}{DOOR}{name}", data=json.dumps(body or {}).encode())  # noqa: S310  loopback
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310  loopback
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise RehearsalError(json.load(error)["error"]) from error
    except (OSError, ValueError):
        return None


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    top = argparse.ArgumentParser(prog="python -m rehearsal", description="An AWS account on this machine.")
    top.add_argument("--state", default=Settings.state, help="state directory (default: %(default)s)")
    commands = top.add_subparsers(dest="command", required=True)
    for name, text in (("up", "start it; does nothing when it runs"), ("serve", "run it in the foreground")):
        up = commands.add_parser(name, help=text)
        up.add_argument("--name", help=f"prefix of containers and networks (default: {Settings.name})")
        up.add_argument("--region", help=f"default: {Settings.region}")
        up.add_argument("--port", type=int, help=f"of the AWS API, on loopback (default: {Settings.port})")
        up.add_argument("--https-port", type=int, help=f"of the first load balancer (default: {Settings.https_port})")
        up.add_argument("--http-port", type=int, help=f"likewise (default: {Settings.http_port})")
        up.add_argument("--speed", type=float, help="cloud seconds in a real second (default: 1)")
        up.add_argument("--image", help=f"what an unknown AMI boots (default: {Settings.image})")
        up.add_argument("--ami", action="append", metavar="AMI=IMAGE", help="the image of an AMI id; may be repeated")
        up.add_argument("--no-bodies", action="store_true", help="only the API and its control loops, no containers")
    commands.add_parser("down", help="end it; remove its containers and networks")
    commands.add_parser("status", help="what there is, as a table").add_argument("--json", action="store_true")
    fault = commands.add_parser(
        "fault", help="break something: throttle, error, kill, wedge, zone; none ends those that last"
    )
    fault.add_argument("kind")
    fault.add_argument("what", nargs="?", default="", help="a share of calls, an instance, or a zone")
    return top


def wanted(arguments: argparse.Namespace) -> Settings:
    """Return the settings that the command line asks for."""
    given = {key: value for key in ("name", "region", "port", "https_port", "http_port", "speed", "image")
             if (value := getattr(arguments, key)) is not None}  # fmt: skip
    pairs = [entry.partition("=") for entry in arguments.ami or []]
    if any(not (ami and image) for ami, _, image in pairs):
        raise RehearsalError("--ami takes AMI=IMAGE, as in --ami ami-0123456789abcdef0=pergola/base:trixie")
    if given.get("speed", 1) <= 0:
        raise RehearsalError("--speed is how many seconds of the cloud pass in one of ours: more than 0")
    images = {ami: image for ami, _, image in pairs}
    return Settings(state=arguments.state, bodies=not arguments.no_bodies, images=images, **given)


def up(settings: Settings) -> None:
    """Start the cloud in the background, unless it runs already."""
    before = Settings.load(settings.state)
    running = ask(before, "status") if before else None
    if running:
        if before != settings:
            raise RehearsalError("a rehearsal runs with other settings. End it first: python -m rehearsal down")
        print(f"the cloud runs already: {settings.endpoint}")
        return
    if ask(settings, "status"):
        raise RehearsalError(f"another rehearsal answers at {settings.endpoint}. Choose another --port.")
    clean(settings)
    settings.save()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    arguments = [sys.executable, "-m", "rehearsal", "--state", settings.state, "serve"]
    with (settings.directory / "cloud.log").open("ab") as log:
        child = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    (settings.directory / "pid").write_text(str(child.pid))
    deadline = time.monotonic() + START
    while not ask(settings, "status", timeout=5):
        if child.poll() is not None or time.monotonic() > deadline:
            last = (settings.directory / "cloud.log").read_text().splitlines()[-5:]
            raise RehearsalError("the cloud did not start. Its last words:\n" + "\n".join(last))
        time.sleep(0.2)
    where = f"AWS_REGION={settings.region} AWS_DEFAULT_REGION={settings.region}"  # boto3 knows the second alone
    print(f"the cloud answers: export AWS_ENDPOINT_URL={settings.endpoint} {where}")


def clean(settings: Settings) -> None:
    """Remove what an earlier rehearsal left: moto's state lives in a process, so a new one starts with an empty account."""
    if settings.bodies:
        containers.ready()
        found = containers.sweep(settings.name)
        if any(found):
            print("an earlier rehearsal ended without `down`: {} containers and {} networks removed".format(*found))
    if (settings.directory / "requests.jsonl").exists():
        print("the account starts empty: nothing is kept from the last rehearsal")
    for name in ("mail", "requests.jsonl", "cloud.log", "balancers"):
        path = settings.directory / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def down(settings: Settings | None) -> None:
    """End the cloud and remove what it made; where there is none, there is nothing to do."""
    if settings is None:
        print("no cloud runs: nothing to remove")
        return
    pid_file = settings.directory / "pid"
    pid = int(pid_file.read_text()) if pid_file.exists() else 0
    if pid and owned(pid):
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        while owned(pid):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
    pid_file.unlink(missing_ok=True)
    found = containers.sweep(settings.name) if settings.bodies else (0, 0)
    print("the cloud is gone: {} containers and {} networks removed".format(*found))


def owned(pid: int) -> bool:
    """Return whether a process is a rehearsal that still runs."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # when it is a child of this process
    listed = subprocess.run(
        ["ps", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False
    ).stdout
    return "rehearsal" in listed and not listed.startswith("Z")


def show(status: dict[str, Any]) -> None:
    """Print what there is."""
    print(f"{status['endpoint']}  up {status['seconds']} s  speed {status['speed']:g}  mail {status['mail']}")
    for name in ("groups", "instances", "balancers", "databases", "alarms"):
        rows = status[name]
        if not rows:
            continue
        heads = list(rows[0])
        cells = [[text(row[head]) for head in heads] for row in rows]
        widths = [max(len(line[n]) for line in [heads, *cells]) for n in range(len(heads))]
        print()
        for line in [heads, *cells]:
            print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for title in ("faults", "problems"):
        for key, value in status[title].items():
            print(f"\n{title[:-1]}: {key}: {value}")
    print("\n" + "\n".join(status["events"]))


def text(value: Any) -> str:
    """Return a table's cell."""
    if isinstance(value, dict):
        return " ".join(f"{key}:{cell}" for key, cell in value.items()) or "-"
    return f"{value:.0f}" if isinstance(value, float) else str("-" if value is None else value)


def main() -> int:
    """Run one command."""
    arguments = parser().parse_args()
    known = Settings.load(arguments.state)
    try:
        if arguments.command == "up":
            up(wanted(arguments))
        elif arguments.command == "serve":
            from rehearsal.cloud import Cloud  # noqa: PLC0415  moto takes a second to import

            LOG.setLevel(logging.INFO)
            LOG.addHandler(logging.StreamHandler(sys.stdout))
            Cloud(known or wanted(arguments)).run()
        elif arguments.command == "down":
            down(known)
        elif arguments.command == "fault":
            answer = ask(require(known), "fault", {"kind": arguments.kind, "what": arguments.what})
            print(json.dumps(require(answer)))
        else:
            status = require(ask(require(known), "status"))
            print(json.dumps(status, indent=1)) if arguments.json else show(status)
    except RehearsalError as error:
        print(f"rehearsal: {error}", file=sys.stderr)
        return 1
    return 0


def require(answer: Any) -> Any:
    """Return settings or an answer; raise when there are none."""
    if answer is None:
        raise RehearsalError("no cloud runs. Start it: python -m rehearsal up")
    return answer


if __name__ == "__main__":
    sys.exit(main())
