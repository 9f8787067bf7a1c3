"""What the role cloudwatch_agent promises: an app's lines and numbers, and the host's, arrive in CloudWatch (moto's)."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

ENOUGH = 60
SERVICES = ("pergola-feed", "pergola-agent")


def until(host: Any, ask: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + ENOUGH
    while not (answer := ask()):
        if time.monotonic() > deadline:
            pytest.fail(f"{what}\n{host.run('journalctl -n 40 --no-pager -u pergola-feed -u pergola-agent').stdout}")
        time.sleep(0.5)
    return answer


@pytest.fixture
def cloudwatch(host: Any) -> Iterator[Callable[[str], Any]]:
    """An emulated CloudWatch that the host reaches, and the stand-in told where it is; gives clients of it."""
    gateway = host.check_output("ip -4 route show default").split()[2]
    with socket.socket() as free:
        free.bind((gateway, 0))
        port = free.getsockname()[1]
    url = f"http://{gateway}:{port}"
    command = [sys.executable, "-m", "moto.server", "--host", gateway, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as emulator:

        def client(service: str) -> Any:
            return boto3.client(
                service,
                region_name="us-east-1",
                endpoint_url=url,
                aws_access_key_id="test",
                aws_secret_access_key="test",
            )

        def answers() -> bool:
            with socket.socket() as sock:
                return sock.connect_ex((gateway, port)) == 0

        until(host, answers, "moto did not start")
        for name in ("host", "hello"):
            client("logs").create_log_group(logGroupName=f"/pergola/local/{name}")
        extra = f"[Service]\nEnvironment=AWS_ENDPOINT_URL={url} REHEARSAL_SPEED=20\n"
        host.check_output("printf %s > /etc/systemd/system/pergola-agent.service.d/where.conf", extra)
        host.check_output("systemctl daemon-reload && systemctl restart pergola-agent")
        yield client
        host.check_output(
            "rm /etc/systemd/system/pergola-agent.service.d/where.conf && systemctl daemon-reload && systemctl restart pergola-agent"
        )
        emulator.terminate()


def get(host: Any, path: str) -> str:
    script = f"""
import http.client, socket
c = http.client.HTTPConnection("localhost", timeout=20)
c.sock = socket.socket(socket.AF_UNIX); c.sock.settimeout(20); c.sock.connect("/run/pergola/route/hello/api")
c.request("GET", "{path}", headers={{"X-Request-ID": "told-to-cloudwatch"}}); print(c.getresponse().read().decode())
"""
    return str(host.check_output("python3 -c %s", script))


def test_lines_and_numbers_arrive(host: Any, cloudwatch: Callable[[str], Any]) -> None:
    logs, metrics = cloudwatch("logs"), cloudwatch("cloudwatch")
    get(host, "/seen")

    def lines(group: str) -> list[dict[str, Any]]:
        found = logs.filter_log_events(logGroupName=f"/pergola/local/{group}")["events"]
        return [json.loads(event["message"]) for event in found]

    (line, *_) = until(host, lambda: [one for one in lines("hello") if one.get("request_id") == "told-to-cloudwatch"], "the app's line did not arrive")  # fmt: skip
    assert (line["app"], line["event"], line["path"], line["status"]) == ("hello", "access", "/seen", 200)
    assert until(
        host, lambda: [one for one in lines("host") if one.get("service") == "systemd"], "no line of the system arrived"
    )

    def names() -> set[str]:
        found = metrics.list_metrics(Namespace="pergola-local")["Metrics"]
        return {
            metric["MetricName"] for metric in found if metric["Dimensions"] == [{"Name": "Fleet", "Value": "main"}]
        }

    assert until(host, names, "no metric of the host arrived") == {
        "cpu_usage_active",
        "mem_used_percent",
        "disk_used_percent",
    }
    told = until(host, lambda: [one for one in lines("host") if "HelloSeen" in one], "no metric of the app arrived")[-1]
    assert told["App"] == "hello"
    assert told["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "pergola-local"


def gauges(host: Any) -> str:
    """Return what is served; nothing at all while the service begins."""
    script = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:9464/metrics').read().decode())"
    return str(host.run("python3 -c %s", script).stdout)


def test_a_service_that_ends_by_itself_is_counted_and_one_that_is_restarted_is_not(host: Any) -> None:
    """Systemd's own lines in the journal: what they look like differs between releases."""

    def count() -> int:
        found = re.search(
            r'ServiceRestarts{Fleet="main"} (\d+)', until(host, lambda: gauges(host), "nothing is served")
        )
        return int(found[1]) if found else -1

    unit = host.check_output("systemctl list-units --plain --no-legend 'pergola-api@hello-*'").split()[0]
    before = count()
    host.check_output(f"systemctl restart {unit}")
    host.check_output(f"systemctl kill --signal=KILL {unit}")
    until(host, lambda: count() > before, "the restart is not told")
    assert count() == before + 1
    until(host, lambda: host.run(f"systemctl is-active {unit}").stdout.strip() == "active", "it was not started anew")


def test_the_gauges_are_for_this_host_only(host: Any) -> None:
    until(host, lambda: 'LiveSessions{App="hello"}' in gauges(host), "the sessions of the app are not told")
    ports = host.check_output("ss -Hltn 'sport = :9464'")
    assert "127.0.0.1:9464" in ports
    assert "0.0.0.0:9464" not in ports


@pytest.mark.parametrize("service", SERVICES)
def test_services_are_sandboxed(host: Any, service: str) -> None:
    assert host.service(service).is_enabled
    report = host.run(f"systemd-analyze security --no-pager {service}.service").stdout
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", report)
    assert found, report
    assert float(found[1]) <= 2.0, report


def test_logs_are_for_their_group_only(host: Any) -> None:
    folder, log = host.file("/var/log/pergola"), host.file("/var/log/pergola/hello.log")
    assert (folder.user, folder.group, folder.mode) == ("pergola-feed", "adm", 0o750)
    assert (log.user, log.group, log.mode) == ("pergola-feed", "adm", 0o640)
    assert host.run("runuser -u pergola-hello -- cat /var/log/pergola/hello.log").rc != 0
    assert host.run("runuser -u pergola-agent -- ls /run/pergola/sock").rc == 0
    assert host.run("runuser -u pergola-agent -- ls /etc/pergola/secrets").rc != 0


def test_a_killed_feed_loses_no_line(host: Any) -> None:
    script = 'for n in $(seq {}); do logger -t pergola-api-hello-a \'{{"ts":"2026-11-28T12:00:00.000Z","n":"{}-\'$n\'"}}\'; done'
    host.check_output(script.format(50, "before"))
    host.check_output("systemctl kill --signal=KILL pergola-feed")
    host.check_output(script.format(50, "after"))

    def have() -> bool:
        text = host.check_output("cat /var/log/pergola/hello.log")
        return all(f'"{when}-{number}"' in text for when in ("before", "after") for number in range(1, 51))

    until(host, have, "lines are missing")
