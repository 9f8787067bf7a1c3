"""What the tests of this scenario share: stand-ins for apps, requests made on the host, and the role run again with other variables."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CONVERGE = Path(__file__).parents[1] / "converge.yml"


@dataclass(frozen=True)
class Answer:
    """An answer to a request, as curl saw it."""

    status: int
    protocol: str
    headers: dict[str, list[str]]
    body: str

    def header(self, name: str) -> str:
        """Return the only value of a header; a header that came twice is a finding."""
        values = self.headers.get(name.lower(), [])
        assert len(values) == 1, f"{name}: expected once, got {values}"
        return values[0]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)


class Host:
    """One host of the scenario."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.name: str = inner.backend.name

    def sh(self, script: str) -> str:
        """Run a script that must succeed and return what it prints."""
        done = self.inner.run("sh -euc %s", script)
        assert done.rc == 0, f"{script}\n{done.stdout_bytes!r}{done.stderr}"
        return str(done.stdout_bytes.decode(errors="replace"))

    def status(self, script: str) -> tuple[int, str]:
        """Run a script that may fail and return its status and all it prints."""
        done = self.inner.run("sh -uc %s", f"{{ {script}; }} 2>&1")
        return int(done.rc), str(done.stdout)

    def get(self, url: str, *options: str) -> Answer:
        """Make a request on the host; a path goes to nginx over HTTPS."""
        if url.startswith("/"):
            url = f"https://127.0.0.1{url}"
        command = shlex.join(
            [
                "curl",
                "-sk",
                "--max-time",
                "20",
                "-o",
                "/tmp/body",
                "-w",
                "%{http_code} %{http_version}\n%{header_json}",
                *options,
                url,
            ]
        )
        first, _, headers = self.sh(f": >/tmp/body; {command}").partition("\n")
        status, protocol = first.split()
        return Answer(int(status), protocol, json.loads(headers), self.sh("cat /tmp/body"))

    def serial(self, *, other_than: str = "") -> str:
        """Return the serial number of the certificate that is served, once it is another (a reload takes a moment)."""
        ask = "echo | openssl s_client -connect 127.0.0.1:443 -servername app.test 2>/dev/null | openssl x509 -noout -serial"
        found = self.sh(
            f'for i in $(seq 300); do s=$({ask}); [ "$s" = "{other_than}" ] || break; sleep 0.2; done; echo "$s"'
        ).strip()
        assert found != other_than, "the certificate has not changed in a minute"
        return found

    def master(self) -> str:
        """Return the pid of nginx's master process: it changes when nginx is restarted, not when it is reloaded."""
        return self.sh("systemctl show -p MainPID --value nginx.service").strip()

    def log(self, request_id: str) -> dict[str, Any]:
        """Return the line of the access log about a request."""
        line: dict[str, Any] = json.loads(self.sh(f"grep -F {request_id} /var/log/nginx/access.log"))
        return line

    def converge(self, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run the scenario's playbook on this host, with other variables."""
        return subprocess.run(
            [
                "ansible-playbook",
                "-i",
                os.environ["MOLECULE_INVENTORY_FILE"],
                "--limit",
                self.name,
                "-e",
                json.dumps(variables),
                str(CONVERGE),
            ],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        )

    def converged(self, **variables: Any) -> str:
        """Run it and insist that it succeeds; returns what Ansible says."""
        done = self.converge(**variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, **variables: Any) -> str:
        """Run it and insist that it fails; returns what Ansible says, on one line and without its quoting."""
        done = self.converge(**variables)
        assert done.returncode != 0, f"the role should have failed\n{done.stdout}"
        return re.sub(r"\s+", " ", (done.stdout + done.stderr).replace("\\n", " ").replace('\\"', '"'))


@pytest.fixture(scope="module")
def empty_site(host: Any) -> Host:
    """Give a host where no app was ever started."""
    return Host(host)


@pytest.fixture(scope="module")
def site(empty_site: Host) -> Iterator[Host]:
    """Give a host whose apps are stand-ins in two slots, with slot a live."""
    host = empty_site
    host.sh(
        """
        systemctl start standin@a standin@b
        mkdir -p /run/pergola/route/front /run/pergola/route/demo
        for route in front/api demo/api demo/ui; do
          ln -sfn /run/pergola/sock/$(echo $route | sed 's|/|-a.|').sock /run/pergola/route/$route
        done
        ln -sfn /run/pergola/sock/demo-a.ui.sock /run/pergola/route/demo/ui-a
        rm -f /etc/nginx/pergola/maintenance
        for i in $(seq 300); do [ -S /run/pergola/sock/demo-b.ui.sock ] && exit; sleep 0.1; done; exit 1
        """
    )
    yield host
    host.sh("systemctl stop standin@a standin@b; rm -rf /run/pergola")
