#!/usr/bin/python3
"""Fetches AWS's CloudWatch agent and its signature, and keeps it only when AWS's key signed it.

agent_fetch.py https://<bucket> https://<bucket>/assets/amazon-cloudwatch-agent.gpg <fingerprint> /var/cache/agent.deb
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

NAME = "amazon-cloudwatch-agent.deb"


def fetch(url: str, path: Path) -> Path:
    """Fetch a file."""
    with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as stream:
        shutil.copyfileobj(answer, stream)
    return path


def signers(home: Path, key: Path, signature: Path, package: Path) -> set[str]:
    """Return the fingerprints of the keys of which gpg finds a good signature."""
    gpg = ["gpg", "--homedir", str(home), "--batch", "--no-autostart", "--status-fd", "1"]
    subprocess.run([*gpg, "--import", str(key)], check=True, capture_output=True)
    done = subprocess.run([*gpg, "--verify", str(signature), str(package)], check=False, capture_output=True, text=True)
    return {line.split()[-1] for line in done.stdout.splitlines() if line.startswith("[GNUPG:] VALIDSIG")}


def main() -> int:
    """Fetch, check, keep."""
    bucket, key, fingerprint, target = sys.argv[1:]
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    url = f"{bucket}/debian/{machine}/latest/{NAME}"
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        package, signature = fetch(url, home / NAME), fetch(f"{url}.sig", home / f"{NAME}.sig")
        found = signers(home, fetch(key, home / "key.gpg"), signature, package)
        if fingerprint.replace(" ", "") not in found:
            print(
                f"{url} is not signed by {fingerprint}, but by {', '.join(found) or 'nobody'}: not installed",
                file=sys.stderr,
            )
            return 1
        shutil.copy(package, target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
