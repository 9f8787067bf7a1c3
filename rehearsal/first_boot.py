"""Runs on an instance: fetches its user data and runs it once, as cloud-init does on a real one. Scripts only."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

URL = "http://169.254.169.254/latest"
DONE = Path("/var/lib/rehearsal")


def ask(path: str, method: str = "GET", headers: dict[str, str] | None = None) -> bytes:
    """Ask the metadata service."""
    request = urllib.request.Request(f"{URL}/{path}", method=method, headers=headers or {})  # noqa: S310  a fixed address
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=5) as answer:
        return bytes(answer.read())


def token() -> str:
    """Return a token; the network of a new machine may take a moment."""
    for _ in range(100):
        try:
            return ask("api/token", "PUT", {"X-aws-ec2-metadata-token-ttl-seconds": "600"}).decode()
        except OSError:
            time.sleep(0.2)
    sys.exit("the metadata service did not answer within 20 s")


def main() -> int:
    """Run the user data unless this instance has run it."""
    key = {"X-aws-ec2-metadata-token": token()}
    done = DONE / ask("meta-data/instance-id", headers=key).decode()
    if done.exists():
        return 0
    try:
        data = ask("user-data", headers=key)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        data = b""
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    DONE.mkdir(parents=True, exist_ok=True)
    done.touch()
    if not data.strip():
        return 0
    if not data.startswith(b"#!"):
        sys.exit("the rehearsal runs user data that is a script (#!...); this begins with " + repr(data[:20]))
    script = DONE / "user-data"
    script.write_bytes(data)
    script.chmod(0o700)
    with Path("/var/log/cloud-init-output.log").open("ab") as log:
        return subprocess.run(
            [str(script)], stdout=log, stderr=log, cwd="/", env={**os.environ, "HOME": "/root"}, check=False
        ).returncode


if __name__ == "__main__":
    sys.exit(main())
