#!/usr/bin/python3
"""First words of a host: fetch what it shall become, check it, and begin.

This file is the user data of an instance (with its settings filled in) and is part of the host plane, which imports it. It needs what
every Debian has, Python's standard library, and holds no secret: the instance's role opens the bucket.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import http.client
import json
import os
import tarfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

# JSON: bucket, region, namespace of metrics, release, sha256, group, launch_hook, terminate_hook, drain_seconds, bake, report
SETTINGS = r"""@SETTINGS@"""
METADATA = "http://169.254.169.254/latest/"
HOME = Path("/opt/pergola/site")
TRIES = 6
LOST = (OSError, http.client.HTTPException, TimeoutError)
# seconds by which this host's clock is ahead of AWS's, once it is known: AWS refuses what was signed at another time
AHEAD = [0.0]


def say(text: str) -> None:
    """Print a line for the console and cloud-init's log."""
    print(f"pergola: {text}", flush=True)


def patiently(what: str, attempt: Callable[[], Any]) -> Any:
    """Try until it works; a network that is not up yet, a throttled call or a role that IAM is still spreading passes."""
    for number in range(TRIES):
        try:
            return attempt()
        except LOST as error:
            reason = f"{error.code} {error.read(300)!r}" if isinstance(error, urllib.error.HTTPError) else str(error)
            if number == TRIES - 1:
                raise RuntimeError(f"{what} failed {TRIES} times: {reason}") from error
            say(f"{what}: {reason}; once more")
            time.sleep(2**number)
    return None


def metadata(path: str) -> str | None:
    """Return what the metadata service (version 2) has at a path; None when there is nothing."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def ask() -> str | None:
        key = urllib.request.Request(
            f"{METADATA}api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "300"}
        )
        with opener.open(key, timeout=5) as answer:
            token = answer.read().decode()
        question = urllib.request.Request(METADATA + path, headers={"X-aws-ec2-metadata-token": token})
        try:
            with opener.open(question, timeout=5) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    found: str | None = patiently(f"asking for {path}", ask)
    return found


def sign(service: str, region: str, request: urllib.request.Request, keys: dict[str, str]) -> urllib.request.Request:
    """Sign a request without a query string (AWS Signature Version 4)."""
    url, body = urllib.parse.urlsplit(request.full_url), bytes(request.data or b"")  # type: ignore[arg-type]
    now = (dt.datetime.now(dt.UTC) - dt.timedelta(seconds=AHEAD[0])).strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    given = {"host": url.netloc, "x-amz-date": now, "x-amz-content-sha256": digest, "x-amz-security-token": keys["Token"],
             **{name.lower(): value for name, value in request.header_items()}}  # fmt: skip
    names = ";".join(sorted(given))
    lines = "".join(f"{name}:{given[name].strip()}\n" for name in sorted(given))
    canonical = "\n".join([request.get_method(), url.path or "/", "", lines, names, digest])
    scope = f"{now[:8]}/{region}/{service}/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys['SecretAccessKey']}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    for name, value in given.items():
        request.add_header(name, value)
    credential = f"AWS4-HMAC-SHA256 Credential={keys['AccessKeyId']}/{scope}"
    request.add_header("Authorization", f"{credential}, SignedHeaders={names}, Signature={key.hex()}")
    return request


def keys() -> dict[str, str]:
    """Return credentials of this instance's role."""
    base = "meta-data/iam/security-credentials/"
    role = metadata(base)
    if not role:
        raise RuntimeError("this instance has no role; give its launch template an instance profile")
    found: dict[str, str] = json.loads(metadata(base + role.strip()) or "{}")
    return found


def call(
    service: str, region: str, body: bytes, headers: dict[str, str], credentials: dict[str, str] | None = None
) -> bytes:
    """Call a service's API, with the credentials of this instance's role unless others are given."""
    url = os.environ.get("AWS_ENDPOINT_URL") or f"https://{service}.{region}.amazonaws.com"
    request = urllib.request.Request(f"{url}/", data=body, method="POST", headers=headers)
    with urllib.request.urlopen(sign(service, region, request, credentials or keys()), timeout=30) as answer:
        return bytes(answer.read())


def asked(settings: dict[str, Any], key: str) -> urllib.request.Request:
    """Return a signed request for what the release's bucket has under a key."""
    bucket, region = settings["bucket"], settings["region"]
    url = os.environ.get("AWS_ENDPOINT_URL")
    url = f"{url}/{bucket}/{key}" if url else f"https://{bucket}.s3.{region}.amazonaws.com/{key}"
    return sign("s3", region, urllib.request.Request(url), keys())


def fetch(settings: dict[str, Any], key: str, sha256: str) -> Path:
    """Return a file of the release, from the bucket unless it is here already; its checksum is right."""
    target = HOME / "files" / key.rpartition("/")[2]
    if target.is_file() and checksum(target) == sha256:
        return target

    def get() -> None:
        part = target.with_name(f".{target.name}")
        with urllib.request.urlopen(asked(settings, key), timeout=60) as answer, part.open("wb") as stream:
            while block := answer.read(1 << 20):
                stream.write(block)
        found = checksum(part)
        if found != sha256:
            part.unlink()
            raise OSError(f"its sha256 is {found}, not {sha256}")
        part.replace(target)

    target.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    patiently(f"fetching {key}", get)
    say(f"{target.name}: {target.stat().st_size / 1e6:.1f} MB in {time.monotonic() - began:.1f} s")
    return target


def checksum(path: Path) -> str:
    """Return a file's sha256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def unpacked(settings: dict[str, Any], entry: dict[str, Any]) -> Path:
    """Return the folder of an archive of the release; fetched and unpacked unless an image holds it already."""
    folder = HOME / str(entry["key"]).rpartition("/")[2].partition(".")[0]
    if not folder.is_dir():
        archive = fetch(settings, entry["key"], entry["sha256"])
        part = folder.with_name(f".{folder.name}-{os.getpid()}")
        with tarfile.open(archive) as tar:
            tar.extractall(part, filter="data")
        part.rename(folder)
        archive.unlink()
    return folder


def main() -> None:
    """Fetch the list of the release and the host plane; hand over to it."""
    settings = json.loads(SETTINGS)
    HOME.mkdir(parents=True, exist_ok=True)
    index = json.loads(fetch(settings, settings["release"], settings["sha256"]).read_bytes())
    folder = unpacked(settings, index["host"])
    (HOME / "settings.json").write_text(json.dumps(settings))
    os.execv("/usr/bin/python3", ["/usr/bin/python3", str(folder / "instance.py"), "configure"])


if __name__ == "__main__":
    main()
