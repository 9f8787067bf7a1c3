"""What a host with the baseline does, seen from itself and from its neighbour."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
SSH = "ssh -i /root/test-key -o BatchMode=yes -o ConnectTimeout=5 -o StrictHostKeyChecking=no"


def address(host: Any) -> str:
    """Return the address under which a neighbour sees ``host``."""
    return str(host.check_output("hostname -I").split()[0])


@pytest.fixture
def visitor(neighbour: Any) -> Any:
    """Give a host that holds the private key of the test's admin."""
    key = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"], "id_ed25519").read_text(encoding="ascii")
    neighbour.check_output("umask 077 && echo %s > /root/test-key", key.strip())
    return neighbour


@pytest.fixture
def listener(host: Any) -> Iterator[Any]:
    """Return a function that makes ``host`` answer on a port."""

    def listen(port: int) -> None:
        host.run_expect([0], f"systemd-run --quiet --unit=test-listener-{port} nc -lk {port}")
        host.run_expect([0], f"timeout 20 sh -c 'until ss -Hltn sport = :{port} | grep -q .; do sleep 0.1; done'")

    yield listen
    host.run_expect([0], "systemctl stop 'test-listener-*'")


def test_an_admin_logs_in_with_a_key_and_becomes_root(host: Any, visitor: Any) -> None:
    assert visitor.check_output(f"{SSH} ada@{address(host)} sudo -n id -un") == "root"


def test_a_password_is_not_even_asked_for(host: Any, visitor: Any) -> None:
    refusal = visitor.run(f"{SSH} -o PubkeyAuthentication=no ada@{address(host)} true")
    assert refusal.rc == 255
    assert "Permission denied (publickey)" in refusal.stderr


@pytest.mark.parametrize("option", ["MACs=hmac-sha1", "MACs=umac-64@openssh.com"])
def test_old_algorithms_are_refused(host: Any, visitor: Any, option: str) -> None:
    # A cipher with its own authentication would leave the MAC out
    refusal = visitor.run(f"{SSH} -o Ciphers=aes256-ctr -o {option} ada@{address(host)} true")
    assert "no matching MAC found" in refusal.stderr


def test_tunnels_are_refused(host: Any, visitor: Any) -> None:
    # sshd greets a tunnel to itself with its version, if it lets one through
    tunnel = visitor.run(f"{SSH} -W 127.0.0.1:22 ada@{address(host)} < /dev/null")
    assert "SSH-2.0" not in tunnel.stdout
    assert "administratively prohibited" in tunnel.stderr


def test_who_left_has_no_account(host: Any) -> None:
    assert not host.user("mallory").exists


def test_the_firewall_lets_in_what_is_asked_for_and_drops_the_rest(host: Any, neighbour: Any, listener: Any) -> None:
    for port in (80, 9100, 9999):
        listener(port)
    reached = {port for port in (22, 80, 9100, 9999) if neighbour.run(f"nc -zw2 {address(host)} {port}").rc == 0}
    assert reached == {22, 80, 9100}


def test_the_firewall_leaves_loopback_and_outgoing_traffic_alone(host: Any, neighbour: Any, listener: Any) -> None:
    listener(9999)
    host.run_expect([0], "nc -zw2 127.0.0.1 9999")
    host.run_expect([0], f"nc -zw2 {address(neighbour)} 22")


def test_nothing_is_forwarded(host: Any) -> None:
    assert "type filter hook forward priority filter; policy drop;" in host.check_output(
        "nft list chain inet pergola forward"
    )


@pytest.fixture
def metadata(host: Any) -> Iterator[str]:
    """Give the address of a metadata service that exists on ``host`` alone."""
    service = "http://169.254.169.254:8099/"
    host.check_output("ip address add 169.254.169.254/32 dev lo")
    host.check_output("mkdir -p /srv/metadata && echo credentials >/srv/metadata/index.html")
    server = "python3 -m http.server 8099 --bind 169.254.169.254 --directory /srv/metadata"
    host.check_output(f"systemd-run --quiet --unit=test-metadata {server}")
    yield service
    host.check_output("systemctl stop test-metadata && ip address del 169.254.169.254/32 dev lo")


def test_only_root_and_who_needs_it_reach_the_metadata_service(host: Any, metadata: str) -> None:
    ask = f"curl --silent --max-time 3 --retry 20 --retry-connrefused --retry-delay 0 {metadata}"
    assert host.check_output(ask) == "credentials"
    assert host.check_output(f"setpriv --reuid pergola-asks --regid pergola-asks --clear-groups {ask}") == "credentials"
    for other in ("ada", "www-data", "nobody"):
        refusal = host.run(f"setpriv --reuid {other} --clear-groups curl --silent --show-error --max-time 3 {metadata}")
        assert refusal.stdout == "", f"{other} got it"
        assert refusal.rc == 7, "refused at once (7), not waiting for a timeout (28)"


def test_a_login_makes_files_for_itself_and_no_core_dumps(host: Any, visitor: Any) -> None:
    login = f"{SSH} ada@{address(host)} bash -l -c"
    assert visitor.check_output(f"""{login} '"umask; ulimit -c; ulimit -H -c"'""").split() == ["0027", "0", "0"]
    # what is done as root has to be readable for services
    assert visitor.check_output(f"{SSH} ada@{address(host)} sudo -n sh -c umask") == "0022"


def test_accounts_can_still_be_made_and_every_setting_of_logins_is_understood(host: Any) -> None:
    made = host.run_expect(
        [0], "useradd --system test-made && groupadd test-group && userdel test-made && groupdel test-group"
    )
    assert "unknown" not in made.stderr


def test_what_is_roots_is_for_root_alone(host: Any) -> None:
    kept = "/etc/cron.d /etc/cron.daily /etc/crontab /etc/ssh/sshd_config /root"
    assert host.check_output(f"stat -c '%a %U' {kept}").splitlines() == [
        "700 root",
        "700 root",
        "600 root",
        "600 root",
        "700 root",
    ]


def test_the_firewall_never_touches_rules_of_docker(host: Any) -> None:
    host.run_expect([0], "nft add table ip like_docker && nft 'add chain ip like_docker forward'")
    for verb in ("reload", "restart", "stop"):
        host.run_expect([0], f"systemctl {verb} nftables")
        assert "table ip like_docker" in host.check_output("nft list tables")
    assert "inet pergola" not in host.check_output("nft list tables")
    host.run_expect([0], "systemctl start nftables && nft delete table ip like_docker")
    assert "inet pergola" in host.check_output("nft list tables")


@pytest.mark.timeout(600)
def test_a_rule_that_nft_does_not_accept_is_never_installed(
    hosts: list[Any], play: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = play("part.yml", part="firewall", baseline_firewall_rules=["tcp dprot 9100 accept"])
    assert run.returncode != 0
    for host in hosts:
        assert re.search(f"{host.backend.name}.*tcp dprot 9100 accept", run.stdout), f"not named:\n{run.stdout}"
        assert "tcp dport 9100 accept" in host.check_output("cat /etc/nftables.conf")
        assert "tcp dport 9100 accept" in host.check_output("nft list table inet pergola")


@pytest.mark.timeout(600)
def test_passwords_stay_while_nobody_has_a_key(
    hosts: list[Any], play: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    keys = "/home/ada/.ssh/authorized_keys"
    for host in hosts:
        host.check_output(f"mv {keys} /root/kept-keys")
    run = play("part.yml", part="sshd", baseline_admins=[{"name": "ada"}])
    assert run.returncode == 0, run.stdout
    for host in hosts:
        host.run_expect([0], "sshd -T | grep -qx 'passwordauthentication yes'")
        host.check_output(f"mv /root/kept-keys {keys}")
    run = play("part.yml", part="sshd")
    assert run.returncode == 0, run.stdout
    for host in hosts:
        host.run_expect([0], "sshd -T | grep -qx 'passwordauthentication no'")


@pytest.mark.timeout(600)
def test_an_sshd_that_ignores_the_hardening_is_reported(
    hosts: list[Any], play: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    main = "/etc/ssh/sshd_config"
    for host in hosts:
        host.check_output(f"sed -i.kept 's/^Include/#Include/' {main}")
    run = play("part.yml", part="sshd", baseline_sshd_tcp_forwarding=True)
    for host in hosts:
        host.check_output(f"mv {main}.kept {main}")
    assert run.returncode != 0
    assert "Put the line `Include" in " ".join(run.stdout.split())
    run = play("part.yml", part="sshd")
    assert run.returncode == 0, run.stdout


def test_only_security_updates_install_themselves(host: Any) -> None:
    codename = host.system_info.codename
    trial = host.run_expect([0], "unattended-upgrade --dry-run --debug").stdout
    assert (
        f"Allowed origins are: origin=Debian,codename={codename}-security,label=Debian-Security, origin=Ubuntu" in trial
    )
    assert "Initial blacklist: ^postgresql" in trial
    options = host.check_output("apt-config dump")
    assert 'Unattended-Upgrade::Automatic-Reboot-Time "04:30";' in options
    assert 'APT::Periodic::Unattended-Upgrade "1";' in options


def test_the_time_servers_are_asked(host: Any) -> None:
    if host.package("chrony").is_installed:
        assert "server time.example.org iburst prefer" in host.check_output(
            "chronyd -p -f /etc/chrony/sources.d/pergola.sources"
        )
    else:
        assert (
            "NTP=time.example.org"
            in host.check_output("systemd-analyze cat-config systemd/timesyncd.conf").splitlines()
        )
    assert host.file("/etc/localtime").linked_to == "/usr/share/zoneinfo/Etc/UTC"


def test_the_journal_is_kept_and_every_limit_is_understood(host: Any) -> None:
    machine = host.check_output("cat /etc/machine-id")
    assert host.file(f"/var/log/journal/{machine}/system.journal").exists
    log = host.check_output("journalctl --no-pager --identifier=systemd-journald")
    assert re.search(r"System Journal .* max 1(\.0)?G", log)
    assert "60-pergola.conf" not in log, "journald names the file of a line that it does not understand"


def test_every_kernel_setting_is_one_that_the_kernel_knows(host: Any) -> None:
    settings = dict(
        line.split(" = ")
        for line in host.check_output("cat /etc/sysctl.d/60-pergola.conf").splitlines()
        if not line.startswith("#")
    )
    assert settings["vm.swappiness"] == "10"
    unknown = [key for key in settings if not host.file(f"/proc/sys/{key.replace('.', '/')}").exists]
    # A kernel may be built without these; Debian's has them
    assert set(unknown) <= {"kernel.sysrq", "kernel.yama.ptrace_scope", "net.core.bpf_jit_harden"}


def test_no_unit_has_failed(host: Any) -> None:
    assert host.check_output("systemctl list-units --failed --plain --no-legend") == ""


@pytest.mark.timeout(900)
def test_lynis_rates_it_well_and_what_is_left_is_explained(host: Any) -> None:
    if host.system_info.codename != "trixie":
        pytest.skip("one opinion is enough: it takes minutes")
    host.check_output(
        "mkdir -p /etc/lynis && printf 'skip-test=KRNL-6000\\nskip-test=USB-3000\\n' >/etc/lynis/custom.prf"
    )
    host.check_output("DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends lynis")
    host.check_output("lynis audit system --quick --quiet --no-colors --nolog --report-file /root/lynis.dat")
    report = [line.partition("=") for line in host.check_output("cat /root/lynis.dat").splitlines()]
    index = next(int(value) for key, _, value in report if key == "hardening_index")
    found = {value for key, _, value in report if key in ("warning[]", "suggestion[]")}
    print(f"lynis: hardening index {index}", *sorted(found), sep="\n")
    assert index >= 80
    known = yaml.safe_load((ROOT / "bench" / "explained.yml").read_text(encoding="utf-8"))["lynis"]
    left = [line for line in found if not any(fnmatch.fnmatch(line.partition("|")[0], check) for check in known)]
    assert left == [], "explain it in bench/explained.yml, or mend it"
