"""What happens when a host that serves is changed: only for the better, and without a restart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

NAMED = {"nginx_server_names": ["app.test"], "nginx_trusted_proxies": ["127.0.0.0/8"]}


def changes(output: str) -> int:
    """Return how many tasks changed something."""
    found = re.search(r"changed=(\d+)", output)
    assert found, output
    return int(found[1])


# Where Debian 12 has another program of its own (certbot), or must be left as it was, a test is for both hosts.
EVERY_DEBIAN = {
    "test_a_certificate_comes_from_an_acme_server_and_is_renewed",
    "test_the_way_back_leaves_nothing_behind",
}


@pytest.fixture(autouse=True)
def never_restarted(site: Any, request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test does, nginx's master process stays the same."""
    if "bookworm" in site.name and request.function.__name__ not in EVERY_DEBIAN:
        pytest.skip("asked of Debian 13: what the role decides does not depend on the release")
    before = site.master()
    yield
    assert site.master() == before


@pytest.fixture(scope="module")
def authority(site: Any) -> dict[str, str]:
    """Start an ACME server and an OCSP responder on the host; returns the PEM texts of a certificate for it."""
    site.sh("/etc/acme-test/authority.sh")
    return {name: site.sh(f"cat /etc/acme-test/{name}") for name in ("given-chain.pem", "given.key", "pebble.key")}


def configuration(site: Any) -> str:
    """Return a checksum of all that nginx is configured with."""
    return str(
        site.sh(
            "find /etc/nginx /etc/systemd/system/nginx.service.d /usr/local/lib/pergola -type f ! -path '*/given/*' | sort | xargs sha256sum | sha256sum"
        )
    )


def test_a_broken_configuration_never_replaces_a_working_one(site: Any) -> None:
    before = configuration(site)
    said = site.refused(nginx_extra_server="proxy_pas http://nowhere;")
    assert 'unknown directive "proxy_pas"' in said
    assert configuration(site) == before
    assert site.get("/demo/api/echo").status == 200


def test_a_broken_file_is_not_loaded_either(site: Any) -> None:
    site.sh("cp -a /etc/nginx/nginx.conf /root/good.conf; sed -i 's/proxy_pass/proxy_pas/' /etc/nginx/nginx.conf")
    status, _ = site.status("systemctl reload nginx.service")
    assert status != 0
    assert 'unknown directive "proxy_pas"' in site.sh("journalctl -u nginx.service --no-pager -n 20")
    assert site.get("/demo/api/echo").status == 200
    site.sh("cp -a /root/good.conf /etc/nginx/nginx.conf; systemctl reload nginx.service")


def test_a_taken_port_is_told_before_anything_is_changed(site: Any) -> None:
    before = configuration(site)
    site.sh(
        "systemd-run --unit=squatter python3 -m http.server 8444; for i in $(seq 50); do ss -Hltn 'sport = :8444' | grep -q . && exit; sleep 0.1; done; exit 1"
    )
    pid = site.sh("systemctl show -p MainPID --value squatter.service").strip()
    said = site.refused(nginx_https_port=8444, nginx_extra_http="# changed")
    assert f"Port 8444 is held by python3 (pid {pid})" in said
    assert configuration(site) == before
    site.sh("systemctl stop squatter.service")


def test_a_self_signed_certificate_is_renewed_in_time(site: Any) -> None:
    site.sh("/usr/local/lib/pergola/nginx-certificate selfsigned --days 29 --renew-days 5000 localhost 127.0.0.1")
    site.sh("systemctl reload nginx.service")
    old = site.serial()
    # as if another run had been killed between writing its files and the reload
    site.sh("echo stale >/run/nginx/loaded")
    said = site.converged()
    assert "RUNNING HANDLER [nginx : Nginx runs the new configuration]" in said
    site.serial(other_than=old)
    remains = "openssl x509 -noout -checkend 31104000 -in /etc/nginx/pergola/tls/current/fullchain.pem"
    assert site.sh(remains).strip() == "Certificate will not expire"


def test_a_key_of_another_certificate_is_refused(site: Any, authority: dict[str, str]) -> None:
    old = site.serial()
    said = site.refused(
        nginx_tls_source="given",
        nginx_tls_certificate_pem=authority["given-chain.pem"],
        nginx_tls_key_pem=authority["pebble.key"],
    )
    assert "does not belong to the certificate" in said
    assert site.serial() == old
    assert "give nginx_tls_certificate_path and nginx_tls_key_path" in site.refused(nginx_tls_source="given")


def test_a_given_certificate_is_served_and_stapled(site: Any, authority: dict[str, str]) -> None:
    given = {
        "nginx_tls_source": "given",
        "nginx_tls_certificate_pem": authority["given-chain.pem"],
        "nginx_tls_key_pem": authority["given.key"],
    }
    site.converged(**given, **NAMED)
    assert site.serial() == site.sh("openssl x509 -noout -serial -in /etc/acme-test/given.pem").strip()
    site.sh(
        """
        for i in $(seq 50); do
          echo | openssl s_client -connect 127.0.0.1:443 -servername app.test -status 2>/dev/null | grep -q 'OCSP Response Status: successful' && exit
          sleep 0.2
        done
        exit 1
        """
    )


def test_other_names_are_refused(site: Any) -> None:
    answer = site.get("/demo/api/echo")
    assert (answer.status, answer.json["title"]) == (421, "Not served here")
    assert site.get("http://127.0.0.1/demo/").status == 421
    assert site.get("/demo/api/echo", "-H", "Host: app.test").status == 200
    assert site.get("https://app.test/demo/api/echo").status == 200
    assert site.get("/health").json["who"] == "front-a.api"


def test_a_trusted_proxy_is_believed(site: Any) -> None:
    answer = site.get(
        "https://app.test/demo/api/echo", "-H", "X-Forwarded-For: 6.6.6.6, 203.0.113.7", "-H", "X-Forwarded-Proto: http"
    )
    seen = answer.json["headers"]
    assert (seen["x-forwarded-for"], seen["x-real-ip"], seen["x-forwarded-proto"]) == (
        "203.0.113.7",
        "203.0.113.7",
        "http",
    )
    assert site.log(answer.header("X-Request-ID"))["client"] == "203.0.113.7"


def test_a_certificate_comes_from_an_acme_server_and_is_renewed(site: Any, authority: dict[str, str]) -> None:
    acme = {
        "nginx_tls_source": "acme",
        "nginx_acme_directory_url": "https://localhost:14000/dir",
        "nginx_acme_ca_bundle": "/etc/acme-test/ca.pem",
        **NAMED,
    }
    assert "give the names for the certificate in nginx_server_names" in site.refused(
        **{**acme, "nginx_server_names": []}
    )
    given = site.serial()
    site.converged(**acme)
    first = site.serial(other_than=given)
    assert "Pebble" in site.sh(
        "echo | openssl s_client -connect 127.0.0.1:443 -servername app.test 2>/dev/null | openssl x509 -noout -issuer"
    )
    assert site.sh("systemctl is-active certbot.timer").strip() == "active"
    assert changes(site.converged(**acme)) == 0
    # make it due, and run what the timer runs
    site.sh(
        """
        cd /etc/letsencrypt/renewal
        { echo 'renew_before_expiry = 3650 days'; grep -v renew_before_expiry pergola.conf; } >/root/due.conf
        cp /root/due.conf pergola.conf
        systemctl start certbot.service
        """
    )
    site.serial(other_than=first)
    assert site.get("https://app.test/demo/api/echo", "--http1.1").status == 200


def test_the_way_back_leaves_nothing_behind(site: Any) -> None:
    site.converged()
    assert "self-signed" in site.sh(
        "echo | openssl s_client -connect 127.0.0.1:443 2>/dev/null | openssl x509 -noout -issuer"
    )
    assert site.status("ls /etc/letsencrypt/renewal/pergola.conf")[0] != 0
    assert site.status("ls /etc/nginx/pergola/tls/given")[0] != 0
    kept = site.sh("find /etc/nginx/pergola/tls -mindepth 1 -maxdepth 1 -type d -name '????????????????'").split()
    assert len(kept) == 2, "the certificate in service and the one before"
