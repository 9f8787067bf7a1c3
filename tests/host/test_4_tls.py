"""TLS as an outsider sees it: testssl.sh has no finding above LOW, but that the certificate is self-signed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import LocalHost

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]


def test_testssl_has_no_finding_above_low(local_host: LocalHost) -> None:
    if shutil.which("testssl") is None and shutil.which("docker") is None:
        pytest.skip("testssl.sh is not installed (Debian: apt-get install testssl.sh)")
    done = local_host.run("bench/tls.sh", f"{local_host.url}/", check=False, timeout=800)
    Path("build/test").mkdir(parents=True, exist_ok=True)
    Path("build/test/testssl.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
