"""Faults on one host: what served before keeps serving, nothing acknowledged is lost, and the error names the fix."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from prober.hosts import HostError
from prober.process import ProbeProcess
from tests.conftest import LocalHost

pytestmark = [pytest.mark.host, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]
# enough to fall into every moment of a switch; how much a host can bear is what the benches ask, on a machine of their own
RATE = "--rate=12"
NOTE = {"description": "Blackcurrant and cedar, firm tannins, a long graphite finish from the left bank."}


def predict(host: LocalHost) -> httpx.Response:
    return host.post("/wine/api/predict", NOTE)


def serves(host: LocalHost) -> bool:
    try:
        return predict(host).status_code == 200 and host.get("/wine/").status_code == 200
    except (httpx.HTTPError, OSError):
        return False


def wait_serving(host: LocalHost, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not serves(host):
        assert time.monotonic() < deadline, f"not serving after {seconds} s\n{host.journal()}"
        time.sleep(0.3)


def unit(host: LocalHost, kind: str) -> str:
    return f"pergola-{kind}@wine-{host.app('wine')['slot']}.service"


def main_pid(host: LocalHost, name: str) -> str:
    return host.sh(f"systemctl show -p MainPID --value {name}").strip()


# ---------------------------------------------------------------- processes die


def test_a_killed_worker_is_replaced_and_new_requests_do_not_notice(local_host: LocalHost) -> None:
    pid = main_pid(local_host, unit(local_host, "api"))
    workers = local_host.sh(f"pgrep -P {pid}").split()
    assert len(workers) == 2
    local_host.sh(f"kill -9 {workers[0]}")
    for _ in range(20):  # the other worker and the socket's queue carry on
        assert predict(local_host).status_code == 200
    local_host.wait(f"test $(pgrep -P {pid} | wc -l) -eq 2", 300, "the second worker")


@pytest.mark.parametrize("kind", ["api", "ui"])
def test_a_killed_service_comes_back_and_waiting_connections_are_answered(local_host: LocalHost, kind: str) -> None:
    name = unit(local_host, kind)
    local_host.sh(f"systemctl kill -s KILL {name}")
    # sent while nothing runs: the socket holds them until the service is back
    if kind == "api":
        assert predict(local_host).status_code == 200
    else:
        assert local_host.get("/wine/").status_code == 200
    assert serves(local_host)


def test_nginx_killed_comes_back_by_itself(local_host: LocalHost) -> None:
    local_host.sh("systemctl kill -s KILL nginx")
    wait_serving(local_host)


def test_nginx_stopped_is_started_by_site_yml(local_host: LocalHost) -> None:
    local_host.sh("systemctl stop nginx")
    assert not serves(local_host)
    local_host.site("--tags", "nginx")
    assert serves(local_host)


# ---------------------------------------------------------------- releases


def broken_api(folder: Path) -> None:
    (folder / "api.py").write_text("import a_module_that_is_not_there\n", encoding="utf-8")


def broken_script(folder: Path) -> None:
    (folder / "ui.py").write_text('raise RuntimeError("this script is broken")\n', encoding="utf-8")


def never_ready(folder: Path) -> None:
    text = (folder / "api.py").read_text(encoding="utf-8")
    (folder / "api.py").write_text(
        f"import time\n\ntime.sleep(600)  # never ready\n{text.replace('from __future__ import annotations', '')}",
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    ("change", "reason", "timeout"),
    [
        (broken_api, "a_module_that_is_not_there", 300),  # it is told as soon as the service has given up
        (broken_script, "this script is broken", 300),  # it is told soon after it could be rendered
        (never_ready, "not ready after", 15),
    ],
)
def test_a_broken_release_is_refused_under_load_without_a_failed_request(
    local_host: LocalHost, change: Callable[[Path], None], reason: str, timeout: int
) -> None:
    before = local_host.app("wine")
    release = local_host.install_changed("wine", change)
    with ProbeProcess(local_host.url, RATE, "--sessions=1") as probe:
        time.sleep(2)
        answer = local_host.pergola("deploy", "wine", release, f"--timeout={timeout}")
        time.sleep(2)
        report = probe.stop()
    assert answer["failed"], answer
    assert reason in answer["msg"]
    assert "still serves" in answer["msg"]
    assert local_host.app("wine")["release"] == before["release"]
    assert (report["failed"], report["sockets_cut"]) == (0, 0), report
    assert report["sent"] > 100


def test_sessions_that_end_are_followed_by_others(local_host: LocalHost) -> None:
    with ProbeProcess(local_host.url, "--rate=0", "--sessions=2", "--rerun-seconds=0.2", "--visit-seconds=1") as probe:
        time.sleep(15)
        report = probe.stop()
    assert report["sockets_cut"] == 0, report["sockets_cut_why"]
    assert report["sockets_opened"] > 2


def test_a_good_release_under_load_loses_nothing_and_keeps_the_session(local_host: LocalHost) -> None:
    before = local_host.app("wine")
    release = local_host.install_changed(
        "wine", lambda folder: (folder / "note.txt").write_text(str(time.time_ns())) and None
    )
    with ProbeProcess(local_host.url, RATE, "--sessions=2", "--rerun-seconds=0.5") as probe:
        time.sleep(3)
        probe.mark("during")
        # its processor time comes after that of the live slot, and a busy machine has little left
        answer = local_host.pergola("deploy", "wine", release, "--timeout=300")
        assert answer["changed"], answer
        probe.mark("after")
        time.sleep(6)
        during = local_host.app("wine")
        report = probe.stop()
    assert (report["failed"], report["sockets_cut"]) == (0, 0), report
    assert report["sockets_opened"] == 2
    # the sessions kept the old slot alive
    assert during["release"] == release
    assert any("(2 sessions)" in text for text in during["draining"]), during
    local_host.wait_settled("wine", 300)
    assert local_host.pergola("rollback", "wine")["changed"]
    assert local_host.app("wine")["release"] == before["release"]
    local_host.wait_settled("wine", 300)
    assert serves(local_host)


def test_a_full_disk_stops_the_install_and_nothing_else(local_host: LocalHost) -> None:
    folder = "/opt/pergola/portal/releases"
    live = local_host.app("portal")["release"]
    # a disk of its own with room for the live release and no more
    local_host.sh(
        f"cp -a {folder}/{live} /root-live && mount -t tmpfs -o size=64m tmpfs {folder} && cp -a /root-live {folder}/{live}"
    )
    try:
        local_host.sh(f"head -c 100M /dev/zero > {folder}/filler || test -s {folder}/filler")
        with pytest.raises(HostError, match="the disk is full"):
            local_host.install_changed("portal", lambda copy: (copy / "x.txt").write_text("x") and None)
        assert not local_host.sh(f"find {folder} -maxdepth 1 -name '.*.new'").strip()
        assert local_host.get("/").status_code == 200
        assert local_host.app("portal")["state"] == "serving"
    finally:
        local_host.sh(f"umount {folder}; rm -rf /root-live")
    release = local_host.install_changed("portal", lambda copy: (copy / "x.txt").write_text("x") and None)
    assert release in local_host.pergola("releases", "portal")["releases"]


# ---------------------------------------------------------------- runs that are cut off or meet


def test_a_playbook_killed_half_way_is_finished_by_the_next(local_host: LocalHost) -> None:
    release = local_host.app("wine")["release"]
    for seconds in (2, 6, 10):
        process = subprocess.Popen(
            [ROOT / ".venv/bin/ansible-playbook", "site.yml", "-i", "inventories/local", "-e", f"nginx_public_port={local_host.https}", "-e", "nginx_worker_connections=2048" if seconds != 6 else "nginx_worker_connections=1024"],
            cwd=ROOT, env=local_host.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(seconds)
        process.kill()
        process.wait()
        assert serves(local_host)
    local_host.site()
    assert serves(local_host)
    assert local_host.app("wine")["release"] == release


def test_two_site_yml_at_once_do_not_mix(local_host: LocalHost) -> None:
    results: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda: results.append(local_host.site("--tags", "nginx", check=False)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        time.sleep(1)
    for thread in threads:
        thread.join()
    codes = sorted(done.returncode for done in results)
    assert codes == [0, 75]
    refused = next(done for done in results if done.returncode == 75)
    assert "another run on the inventory local is going on (pid" in refused.stdout + refused.stderr
    assert serves(local_host)


def test_two_deploys_of_one_app_at_once_wait_for_each_other(local_host: LocalHost) -> None:
    first = local_host.install_changed("wine", lambda folder: (folder / "one.txt").write_text("1") and None)
    second = local_host.install_changed("wine", lambda folder: (folder / "two.txt").write_text("2") and None)
    answers: list[dict[str, object]] = []
    threads = [
        threading.Thread(target=lambda r=release: answers.append(local_host.pergola("deploy", "wine", r)))
        for release in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer["changed"] for answer in answers] == [True, True], answers
    assert local_host.app("wine")["release"] in (first, second)
    assert serves(local_host)
    local_host.wait_settled("wine", 300)
    local_host.site("--tags", "apps")
    local_host.wait_settled("wine", 300)


# ---------------------------------------------------------------- wrong input


def test_a_wrong_manifest_stops_the_run_before_the_host_is_touched(local_host: LocalHost, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "app.yml").write_text(
        "name: bad\ntitle: Bad\nsummary: wrong\napi: {app: 'x:y', wokers: 2}\nlimits: {memory: 512}\n", encoding="utf-8"
    )
    done = local_host.site(
        "-e",
        json.dumps({"pergola_apps": ["portal", "wine", "vision", "drawings", "ava", "judge", {"path": str(folder)}]}),
        check=False,
    )
    assert done.returncode != 0
    text = done.stdout + done.stderr
    assert "apps/bad/api/wokers: unknown key, did you mean 'workers'?" in text
    assert "apps/bad/limits/memory: expected text such as 512M" in text
    assert "Make each host serve its apps" not in text
    assert serves(local_host)


def test_a_broken_nginx_setting_never_replaces_a_working_one(local_host: LocalHost) -> None:
    before = local_host.sh("sha256sum /etc/nginx/nginx.conf")
    done = local_host.site("--tags", "nginx", "-e", json.dumps({"nginx_server_names": ["bad name; {"]}), check=False)
    assert done.returncode != 0
    assert local_host.sh("sha256sum /etc/nginx/nginx.conf") == before
    assert serves(local_host)


def test_a_taken_port_is_named_with_its_holder(local_host: LocalHost) -> None:
    local_host.sh("systemctl stop nginx && systemd-run --unit=squatter --quiet python3 -m http.server 443")
    try:
        local_host.wait("ss -Hltn 'sport = :443' | grep -q .", 60, "the squatter")
        done = local_host.site("--tags", "nginx", check=False)
        assert done.returncode != 0
        assert "443" in done.stdout
        assert "python3" in done.stdout
    finally:
        local_host.sh("systemctl stop squatter; systemctl start nginx")
    wait_serving(local_host)


def test_a_taken_port_on_the_laptop_is_named_too(local_host: LocalHost) -> None:
    environment = {**local_host.environment, "PERGOLA_LOCAL_HOST": "pergola-test-two"}
    done = subprocess.run(
        [ROOT / "scripts/local-host", "up"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"port {local_host.https} on this machine is taken by" in done.stderr
    assert "PERGOLA_HTTPS_PORT=" in done.stderr


def test_a_corrupt_model_is_refused_and_the_last_good_one_serves(local_host: LocalHost) -> None:
    good = predict(local_host).json()["model_version"]
    # a newer version whose data does not match its checksum
    local_host.sh(
        """cd /var/lib/pergola/wine/storage/wine
        newest=$(ls -1 *.json | sort | tail -n 1); base=${newest%.json}
        for file in "$base"*; do
          copy=$(echo "$file" | sed 's/^[0-9TZ-]*/99990101T000000Z-/; s/--/-/'); cp -a "$file" "$copy"
          case $file in *.json) ;; *) printf 'torn' > "$copy" ;; esac
        done; ls -l"""
    )
    try:
        for kind in ("api", "ui"):
            local_host.sh(f"systemctl restart {unit(local_host, kind)}")
        wait_serving(local_host)
        answer = predict(local_host).json()
        assert answer["model_version"] == good
    finally:
        local_host.sh("rm -f /var/lib/pergola/wine/storage/wine/9999*")
    assert serves(local_host)
