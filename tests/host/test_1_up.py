"""``make up-local`` from nothing, again, and after a stop: one host that really serves."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
import yaml

from tests.conftest import LocalHost

pytestmark = [pytest.mark.host, pytest.mark.timeout(1500)]
ROOT = Path(__file__).resolve().parents[2]
NOTE = {"description": "Blackcurrant and cedar, firm tannins, a long graphite finish from the left bank."}

FETCH_METRICS = """python3 -c '
import http.client, socket
c = http.client.HTTPConnection("localhost"); c.sock = socket.socket(socket.AF_UNIX)
c.sock.connect("/run/pergola/route/wine/api"); c.request("GET", "/metrics"); print(c.getresponse().read().decode())'"""

PORTS = yaml.safe_load((ROOT / "files/ports.yml").read_text(encoding="utf-8"))


def changed(output: str) -> int:
    found = re.search(r"^pergola-local +ok=\d+ changed=(\d+) failed=0", output, re.MULTILINE)
    assert found, output[-3000:]
    return int(found[1])


def test_the_portal_and_the_apps_answer(local_host: LocalHost) -> None:
    with httpx.Client(base_url=local_host.url, verify=local_host.tls, timeout=30) as client:
        assert client.get("/health").json()["status"] == "ok"
        assert client.get("/health/ready").status_code == 200
        page = client.get("/")
        assert page.status_code == 200
        assert "VinoVoyant" in page.text
        assert client.get("/wine/").status_code == 200
        answer = client.post("/wine/api/predict", json=NOTE).json()
        assert answer["top"]
        assert re.fullmatch(r"\d{8}T[\d.]+Z-[0-9a-f]{8}", answer["model_version"])


# A line of each secret, from the middle of a key, into a file that only root reads: as arguments of a command they would find themselves.
# The first backup makes the password of backups, up to five minutes after the first site.yml.
PATTERNS = """umask 077
[ -e /etc/pergola/backup.password ] || pergola-backup run >/dev/null 2>&1 || [ -e /etc/pergola/backup.password ]
find /etc/pergola/secrets /etc/pergola/backup.password /etc/nginx/pergola/tls -type f ! -name '*.crt' ! -name '*chain*' ! -name '*cert*' ! -name '*.conf' |
  while read -r file; do grep -E '.{12,}' "$file" | awk '{line[NR] = $0} END {print line[int(NR / 2) + 1]}'; done | grep . >/root/patterns
"""
# Everything that others, or whoever reads logs, could see: journal, process lists with environments, units, files that are not root's alone.
PLACES = """journalctl --no-pager -o verbose
ps auxeww
systemctl show '*' --no-pager
cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline
cat /var/log/nginx/*.log /var/log/*.log
find /etc /opt/pergola /run/pergola /srv /tmp /usr/local /var/lib /var/tmp -xdev -type f -perm /0007 -size -1024k -exec cat {} +"""


def test_again_changes_nothing_and_tells_no_secret(local_host: LocalHost) -> None:
    said = local_host.site("-vvv")
    assert changed(said.stdout) == 0
    secrets = local_host.sh(f"{PATTERNS} cat /root/patterns").splitlines()
    assert len(secrets) >= 4, "without secrets there is none to find"
    assert [one for one in secrets if one in said.stdout + said.stderr] == []


@pytest.mark.parametrize("place", PLACES.splitlines())
def test_secrets_are_nowhere_but_in_their_files(local_host: LocalHost, place: str) -> None:
    found = local_host.sh(f"{PATTERNS} ({place}) 2>/dev/null | grep -acF -f /root/patterns", check=False)
    assert found.split() == ["0"], f"found {found} in: {place}"
    planted = local_host.sh(f"{PATTERNS} cat /root/patterns | grep -acF -f /root/patterns")
    assert int(planted) >= 4


def test_check_mode_agrees(local_host: LocalHost) -> None:
    assert changed(local_host.site("--check", "--diff").stdout) == 0


def test_http_leads_to_https_at_the_public_port(local_host: LocalHost) -> None:
    answer = httpx.get(f"http://127.0.0.1:{local_host.http}/wine/?a=b", follow_redirects=False)
    assert answer.status_code == 308
    assert answer.headers["location"] == f"https://127.0.0.1:{local_host.https}/wine/?a=b"


def test_old_tls_is_refused(local_host: LocalHost) -> None:
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.minimum_version = context.maximum_version = version
        assert httpx.get(f"{local_host.url}/health", verify=context).status_code == 200
    old = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{local_host.https}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        input="", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "Cipher is (NONE)" in old.stdout + old.stderr


def test_nothing_listens_that_is_not_in_the_table(local_host: LocalHost) -> None:
    known = {(row["protocol"], str(row["port"]), row["address"], row["program"]) for row in PORTS}
    found = set()
    for line in local_host.sh("ss -Hlntup").splitlines():
        protocol, _, _, _, where, _, *who = line.split()
        address, _, port = where.rpartition(":")
        program = re.match(r'users:\(\("([^"]+)"', " ".join(who))
        kind = "loopback" if address in ("127.0.0.1", "[::1]") else "all"
        found.add((protocol, port, kind, program[1] if program else "?"))
    assert found - known == set(), "files/ports.yml has no such port"
    assert {("tcp", "443", "all", "nginx"), ("tcp", "80", "all", "nginx")} <= found


def test_every_service_is_sandboxed(local_host: LocalHost) -> None:
    units = local_host.sh(
        "systemctl list-units --plain --no-legend --state=running 'pergola-*.service' | cut -d' ' -f1"
    ).split()
    assert any("wine" in unit for unit in units)
    for unit in [*units, "nginx.service"]:
        report = local_host.sh(f"systemd-analyze security --no-pager {unit} | tail -n 1")
        found = re.search(r": ([0-9.]+)", report)
        assert found, report
        assert float(found[1]) <= 2.0, report


def test_status_command_shows_what_is_live(local_host: LocalHost) -> None:
    output = local_host.run("make", "status-local").stdout
    assert re.search(r"wine +serving +[0-9a-f]{12} +[ab] ", output), output
    assert "nginx" in local_host.run("make", "logs-local").stdout


def test_metrics_of_all_workers_add_up(local_host: LocalHost) -> None:
    def count() -> float:
        # only the host itself may ask for them
        text = local_host.sh(FETCH_METRICS)
        rows = re.findall(r'^[a-z_]*requests_total\{[^}]*route="/predict"[^}]*\} ([0-9.e+]+)$', text, re.MULTILINE)
        return sum(float(row) for row in rows)

    before = count()
    for _ in range(40):  # a new connection each: both workers get some
        assert local_host.post("/wine/api/predict", NOTE).status_code == 200
    assert count() - before == 40
    assert local_host.get("/wine/api/metrics").status_code == httpx.codes.NOT_FOUND


def test_stopped_and_started_again_it_serves_the_same(local_host: LocalHost) -> None:
    before = local_host.app("wine")
    local_host.run("make", "down-local")
    local_host.run("scripts/local-host", "up")
    local_host.wait("pergola status | grep -q 'wine.*serving'", 300, "wine after the stop")
    local_host.wait("systemctl is-active --quiet nginx", 300, "nginx after the stop")
    after = local_host.app("wine")
    assert (after["release"], after["slot"]) == (before["release"], before["slot"])
    answer = local_host.post("/wine/api/predict", NOTE)
    assert answer.status_code == 200


def test_the_metadata_address_is_out_of_reach(local_host: LocalHost) -> None:
    route = local_host.sh("ip route get 169.254.169.254", check=False)
    assert "unreachable" in route.lower() or "invalid argument" in route.lower(), route


def test_logs_are_json_with_the_request_id(local_host: LocalHost) -> None:
    request_id = local_host.get("/wine/api/model").headers["x-request-id"]
    slot = local_host.app("wine")["slot"]
    local_host.wait(f"journalctl -o cat -u pergola-api@wine-{slot} | grep -q {request_id}", 60, "the API's log line")
    line = local_host.sh(f"journalctl -o cat -u pergola-api@wine-{slot} | grep {request_id} | tail -n 1")
    assert json.loads(line)["request_id"] == request_id
    access = local_host.sh(f"grep -h {request_id} /var/log/nginx/*.log | tail -n 1")
    assert json.loads(access)["request_id"] == request_id
