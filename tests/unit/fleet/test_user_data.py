"""What a host does first: signed, checked, patient, and small."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.modules import loaded

ROOT = Path(__file__).resolve().parents[3]
SOURCE = ROOT / "roles/aws_fleet/files/user_data.py"
KEYS = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "wJalrXUtnFEMI", "Token": "a-token"}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Give the program as a module, with a folder of its own and no waiting."""
    module = loaded(SOURCE)
    monkeypatch.setattr(module, "HOME", tmp_path / "site")
    monkeypatch.setattr(module, "keys", lambda: KEYS)
    monkeypatch.setattr(module.time, "sleep", lambda _: None)
    return module


class Bucket:
    """A server with objects; it refuses the first requests when told to."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refuse = 0
        self.asked: list[dict[str, str]] = []
        bucket = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                """Say nothing."""

            def do_GET(self) -> None:
                bucket.asked.append({key.lower(): value for key, value in self.headers.items()})
                body = bucket.objects.get(self.path)
                bucket.refuse -= 1
                status = 503 if bucket.refuse >= 0 else 404 if body is None else 200
                self.send_response(status)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """Give a bucket that AWS_ENDPOINT_URL leads to."""
    made = Bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.server.shutdown()
    made.server.server_close()


SETTINGS = {"bucket": "artefacts", "region": "eu-central-1"}


def test_it_fits_into_user_data_and_needs_only_the_standard_library() -> None:
    text = SOURCE.read_text(encoding="utf-8")
    assert len(text) < 14_000, "16 KB with the settings"
    assert text.startswith("#!/usr/bin/python3\n")
    assert text.count("@SETTINGS@") == 1
    assert "boto" not in text.lower().replace("botocore", "")


@pytest.mark.parametrize(("service", "body"), [("s3", b""), ("autoscaling", b"Action=X&Version=2011-01-01")])
def test_its_signature_is_botocores(program: ModuleType, service: str, body: bytes) -> None:
    url = f"https://{service}.eu-central-1.amazonaws.com/releases/a-b.tar.gz"
    method, headers = ("POST", {"Content-type": "application/x-www-form-urlencoded"}) if body else ("GET", {})
    ours = program.sign(
        service, "eu-central-1", urllib.request.Request(url, data=body or None, method=method, headers=headers), KEYS
    )
    sent = {key.lower(): value for key, value in ours.header_items()}
    theirs = AWSRequest(method, url, data=body, headers=headers)
    theirs.context["timestamp"] = sent["x-amz-date"]
    theirs.headers["X-Amz-Date"] = sent["x-amz-date"]
    theirs.headers["x-amz-content-sha256"] = sent["x-amz-content-sha256"]
    theirs.headers["X-Amz-Security-Token"] = KEYS["Token"]
    kind = S3SigV4Auth if service == "s3" else SigV4Auth
    signer = kind(Credentials(*KEYS.values()), service, "eu-central-1")
    text = signer.string_to_sign(theirs, signer.canonical_request(theirs))
    assert sent["authorization"].rpartition("Signature=")[2] == signer.signature(text, theirs)


def test_a_file_is_fetched_once_and_checked(program: ModuleType, bucket: Bucket) -> None:
    content = b"what a host becomes"
    bucket.objects["/artefacts/releases/a.json"] = content
    sha256 = hashlib.sha256(content).hexdigest()
    for _ in range(2):
        assert program.fetch(SETTINGS, "releases/a.json", sha256).read_bytes() == content
    assert len(bucket.asked) == 1
    assert bucket.asked[0]["x-amz-security-token"] == "a-token"


def test_a_file_with_another_checksum_is_refused(program: ModuleType, bucket: Bucket) -> None:
    bucket.objects["/artefacts/releases/a.json"] = b"what somebody else wrote"
    with pytest.raises(RuntimeError, match="its sha256 is"):
        program.fetch(SETTINGS, "releases/a.json", hashlib.sha256(b"what we wrote").hexdigest())
    assert [path for path in program.HOME.rglob("*") if path.is_file()] == []


def test_a_throttled_bucket_is_asked_again(program: ModuleType, bucket: Bucket) -> None:
    bucket.objects["/artefacts/releases/a.json"], bucket.refuse = b"{}", 3
    assert program.fetch(SETTINGS, "releases/a.json", hashlib.sha256(b"{}").hexdigest()).exists()
    assert len(bucket.asked) == 4


def test_an_archive_is_unpacked_whole_and_only_once(program: ModuleType, bucket: Bucket) -> None:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        info = tarfile.TarInfo("playbooks/host.yml")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"---"))
    content = stream.getvalue()
    bucket.objects["/artefacts/releases/host-1.tar.gz"] = content
    entry = {"key": "releases/host-1.tar.gz", "sha256": hashlib.sha256(content).hexdigest()}
    for _ in range(2):
        folder = program.unpacked(SETTINGS, entry)
    assert (folder / "playbooks/host.yml").read_text() == "---"
    assert len(bucket.asked) == 1


def test_the_settings_hold_no_secret() -> None:
    tasks = (ROOT / "roles/aws_fleet/tasks/main.yml").read_text(encoding="utf-8")
    settings = tasks.partition("__aws_fleet_settings: >-")[2].partition("loop:")[0]
    assert "bucket" in settings
    assert not [word for word in ("password", "secret", "token") if word in json.dumps(settings)]
