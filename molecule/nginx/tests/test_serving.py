"""What a visitor gets, from a host that was set up once."""

from __future__ import annotations

import json
from typing import Any

import pytest


def test_nginx_starts_without_any_app(empty_site: Any) -> None:
    site = empty_site
    assert site.sh("systemctl is-active nginx.service").strip() == "active"
    answer = site.get("/demo/", "-H", "Accept: text/html")
    assert answer.status == 502
    assert "Not available right now" in answer.body
    assert answer.header("X-Request-ID") in answer.body
    assert answer.header("Retry-After") == "5"
    assert answer.header("Content-Type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.header("Content-Security-Policy")


def test_the_sandbox_is_tight(site: Any) -> None:
    said = site.sh("systemd-analyze security --no-pager nginx.service | tail -1")
    assert float(said.split(": ")[1].split()[0]) <= 2.0
    assert site.sh("ps -o user= -C nginx | sort -u").split() == ["www-data"]


def test_only_modern_tls_is_spoken(site: Any) -> None:
    connect = "echo | openssl s_client -connect 127.0.0.1:443 -cipher DEFAULT@SECLEVEL=0"
    for version in ("tls1", "tls1_1"):
        status, said = site.status(f"{connect} -{version}")
        assert status != 0, said
    for version in ("tls1_2", "tls1_3"):
        status, said = site.status(f"{connect} -{version}")
        assert status == 0, said
    status, said = site.status("echo | openssl s_client -connect 127.0.0.1:443 -tls1_2 -cipher AES128-SHA")
    assert status != 0, said
    assert "TLS session ticket:" not in site.sh("echo | openssl s_client -connect 127.0.0.1:443 -tls1_2 2>/dev/null")


def test_the_certificate_is_for_this_host(site: Any) -> None:
    said = site.sh(
        "echo | openssl s_client -connect 127.0.0.1:443 2>/dev/null | openssl x509 -noout -ext subjectAltName -checkend 31104000"
    )
    assert "DNS:localhost" in said
    assert "IP Address:127.0.0.1" in said
    assert "will not expire" in said
    assert site.sh("stat -L -c '%U:%G %a' /etc/nginx/pergola/tls/current/privkey.pem").strip() == "root:www-data 640"


def test_every_answer_has_the_headers(site: Any) -> None:
    for path in ("/", "/demo/", "/demo/api/echo", "/nothing-here"):
        answer = site.get(path)
        assert answer.header("Strict-Transport-Security") == "max-age=63072000"
        assert answer.header("X-Content-Type-Options") == "nosniff"
        assert answer.header("X-Frame-Options") == "SAMEORIGIN"
        assert answer.header("Referrer-Policy") == "strict-origin-when-cross-origin"
        assert "camera=(self)" in answer.header("Permissions-Policy")
        assert answer.header("Server") == "nginx"
        assert answer.header("X-Request-ID") != "from-the-app"
    assert "frame-ancestors 'self'" in site.get("/demo/").header("Content-Security-Policy")
    assert "content-security-policy" not in site.get("/demo/api/echo").headers


def test_an_app_may_set_its_own_headers(site: Any) -> None:
    for path in ("/demo/own", "/demo/api/own"):
        answer = site.get(path)
        assert answer.header("Content-Security-Policy") == "default-src 'none'"
        assert answer.header("X-Frame-Options") == "DENY"
        assert answer.header("X-Content-Type-Options") == "nosniff"


def test_http_2_is_spoken(site: Any) -> None:
    assert site.get("/").protocol == "2"
    assert site.get("/", "--http1.1").protocol == "1.1"


def test_plain_http_leads_to_https(site: Any) -> None:
    answer = site.get("http://127.0.0.1/demo/?a=b")
    assert (answer.status, answer.header("Location")) == (308, "https://127.0.0.1:8443/demo/?a=b")
    answer = site.get("http://127.0.0.1:443/demo/?a=b")
    assert (answer.status, answer.header("Location")) == (308, "https://127.0.0.1:8443/demo/?a=b")


def test_a_missing_slash_is_added_without_losing_the_port(site: Any) -> None:
    answer = site.get("/demo?a=b")
    assert (answer.status, answer.header("Location")) == (308, "/demo/?a=b")


def test_each_path_reaches_its_app(site: Any) -> None:
    expected = {
        "/": ("front-a.api", "/"),
        "/health/ready?deep=1": ("front-a.api", "/health/ready?deep=1"),
        "/demo/x/y?z=1": ("demo-a.ui", "/demo/x/y?z=1"),
        "/demo/static/echo": ("demo-a.ui", "/demo/static/echo"),
        "/demo/api/echo?z=1": ("demo-a.api", "/echo?z=1"),
        "/demo/api/": ("demo-a.api", "/"),
        "/demo/api/static/echo": ("demo-a.api", "/static/echo"),
    }
    for path, (who, target) in expected.items():
        seen = site.get(path).json
        assert (seen["who"], seen["target"]) == (who, target)


def test_the_client_cannot_lie_about_itself(site: Any) -> None:
    lies = (
        "X-Forwarded-For: 6.6.6.6",
        "X-Real-IP: 6.6.6.6",
        "X-Forwarded-Proto: gopher",
        "X-Forwarded-Host: evil",
        "Forwarded: for=6.6.6.6",
        "X-Request-ID: mine",
        "Proxy: evil",
    )
    answer = site.get(
        "/demo/api/echo",
        *(part for lie in lies for part in ("-H", lie)),
        "-H",
        "X-Forwarded-Prefix: /evil",
        "-H",
        "X-Forwarded-Port: 1",
        "-H",
        "Host: example.org:8443",
    )
    seen = answer.json["headers"]
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == "127.0.0.1"
    assert seen["x-forwarded-proto"] == "https"
    assert seen["x-forwarded-host"] == seen["host"] == "example.org:8443"
    assert seen["x-forwarded-port"] == "8443"
    assert seen["x-forwarded-prefix"] == "/demo/api"
    assert seen["x-request-id"] == answer.header("X-Request-ID")
    assert not {"forwarded", "proxy"} & seen.keys()
    assert site.log(answer.header("X-Request-ID"))["client"] == "127.0.0.1"


def test_every_request_is_logged_once_with_its_times(site: Any) -> None:
    line = site.log(site.get('/demo/api/echo?token=secret"', "-A", 'quo"te').header("X-Request-ID"))
    assert line["path"] == "/demo/api/echo"
    assert (line["app"], line["kind"], line["status"], line["user_agent"]) == ("demo", "api", 200, 'quo"te')
    assert (line["protocol"], line["tls"], line["upstream_status"]) == ("HTTP/2.0", "TLSv1.3", "200")
    assert float(line["upstream_seconds"]) <= line["seconds"] + 0.01
    assert "secret" not in json.dumps(line)
    refused = site.log(
        site.get("/demo/api/echo", "--http1.1", "-H", "Content-Length: 9999999", "-X", "POST").header("X-Request-ID")
    )
    assert (refused["app"], refused["status"]) == ("demo", 413)
    healthy = site.get("/health").header("X-Request-ID")
    assert site.status(f"grep -F {healthy} /var/log/nginx/access.log")[0] == 1


def test_what_is_too_large_is_refused(site: Any) -> None:
    site.sh("head -c 1048576 /dev/zero >/tmp/fits; head -c 1048577 /dev/zero >/tmp/large")
    assert site.get("/demo/api/echo", "--data-binary", "@/tmp/fits").json["body_bytes"] == 1048576
    for protocol in ("--http1.1", "--http2"):
        answer = site.get("/demo/api/echo", protocol, "--data-binary", "@/tmp/large")
        assert (answer.status, answer.header("Content-Type")) == (413, "application/problem+json")
        assert answer.json["status"] == 413
        assert answer.json["request_id"] == answer.header("X-Request-ID")
        assert answer.json["instance"] == "/demo/api/echo"
    page = site.get("/demo/upload", "--data-binary", "@/tmp/large", "-H", "Accept: text/html")
    assert (page.status, page.header("Content-Type")) == (413, "text/html; charset=utf-8")
    assert "Too large" in page.body


def test_a_late_app_gives_a_problem_and_is_not_asked_again(site: Any) -> None:
    answer = site.get("/demo/api/slow?seconds=5")
    assert (answer.status, answer.json["title"]) == (504, "No answer in time")
    assert site.log(answer.header("X-Request-ID"))["upstream_status"] == "504"


def test_a_get_survives_a_dying_worker_and_a_post_is_never_run_twice(site: Any) -> None:
    answer = site.get("/demo/api/die?key=get")
    assert (answer.status, answer.json["seen"]) == (200, 2)
    assert site.log(answer.header("X-Request-ID"))["upstream_status"] == "502, 200"
    answer = site.get("/demo/api/die?key=post", "--data", "x")
    assert answer.status == 502
    assert site.get("/demo/api/seen?key=post").json["seen"] == 1


def test_a_switch_of_the_link_is_a_release(site: Any) -> None:
    assert site.get("/demo/api/echo").json["who"] == "demo-a.api"
    site.sh(
        "ln -sfn /run/pergola/sock/demo-b.api.sock /run/pergola/route/demo/.api && mv -T /run/pergola/route/demo/.api /run/pergola/route/demo/api"
    )
    assert site.get("/demo/api/echo").json["who"] == "demo-b.api"
    site.sh(
        "ln -sfn /run/pergola/sock/demo-a.api.sock /run/pergola/route/demo/.api && mv -T /run/pergola/route/demo/.api /run/pergola/route/demo/api"
    )


def test_the_slot_cookie_leads_to_its_slot(site: Any) -> None:
    route = "/run/pergola/route/demo"
    assert site.get("/demo/").json["who"] == "demo-a.ui"
    assert site.get("/demo/", "-b", "pergola_slot_demo=a").json["who"] == "demo-a.ui"
    # slot b does not serve: its visitors come to the live one
    assert site.get("/demo/", "-b", "pergola_slot_demo=b").json["who"] == "demo-a.ui"
    site.sh(
        f"ln -sfn /run/pergola/sock/demo-b.ui.sock {route}/ui-b; ln -sfn /run/pergola/sock/demo-b.ui.sock {route}/ui"
    )
    assert site.get("/demo/").json["who"] == "demo-b.ui"
    assert site.get("/demo/", "-b", "pergola_slot_demo=a").json["who"] == "demo-a.ui"
    assert site.get("/demo/static/echo", "-b", "pergola_slot_demo=a").json["who"] == "demo-a.ui"
    assert site.get("/demo/", "-b", "pergola_slot_demo=nonsense").json["who"] == "demo-b.ui"
    # the old slot has drained
    site.sh(f"rm {route}/ui-a")
    assert site.get("/demo/", "-b", "pergola_slot_demo=a").json["who"] == "demo-b.ui"
    site.sh(
        f"ln -sfn /run/pergola/sock/demo-a.ui.sock {route}/ui-a; ln -sfn /run/pergola/sock/demo-a.ui.sock {route}/ui; rm {route}/ui-b"
    )


def test_a_websocket_goes_through_to_screens_only(site: Any) -> None:
    client = "timeout 15 python3 /usr/local/lib/websocket.py"
    assert site.sh(f"{client} /demo/_stcore/stream '' hello again").splitlines() == [
        "HTTP/1.1 101 Switching Protocols",
        "demo-a.ui:hello",
        "demo-a.ui:again",
    ]
    assert site.sh(f"{client} /demo/api/x ''").splitlines() == ["HTTP/1.1 200 OK"]


def test_a_reload_keeps_websockets(site: Any) -> None:
    site.sh(
        "rm -f /run/websocket-go; timeout 30 python3 /usr/local/lib/websocket.py /demo/_stcore/stream '' one WAIT two >/tmp/socket 2>&1 &"
    )
    site.sh("for i in $(seq 50); do grep -q one /tmp/socket && exit; sleep 0.1; done; exit 1")
    before = site.master()
    site.sh("systemctl reload nginx.service; sleep 0.5; touch /run/websocket-go")
    site.sh("for i in $(seq 50); do grep -q two /tmp/socket && exit; sleep 0.1; done; cat /tmp/socket; exit 1")
    assert site.master() == before


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_static_files_are_compressed_and_nothing_else(site: Any, encoding: str) -> None:
    ask = ("-H", f"Accept-Encoding: {encoding}")
    for path in ("/demo/static/app.js", "/demo/api/static/app.js", "/static/app.js"):
        answer = site.get(path, *ask)
        assert answer.header("Content-Encoding") == encoding
        assert "Accept-Encoding" in answer.headers["vary"]
    for path in ("/demo/app.js", "/demo/", "/demo/api/app.js", "/"):
        answer = site.get(path, *ask)
        assert "content-encoding" not in answer.headers
        if not path.endswith("app.js"):
            assert "accept-encoding" not in answer.json["headers"]


def test_guessing_passwords_is_slowed_down(site: Any) -> None:
    urls = " ".join(["-o /dev/null https://127.0.0.1/demo/api/auth/login"] * 20)
    statuses = site.sh(f"curl -sk --data password=x -w '%{{http_code}}\\n' {urls}").split()
    assert statuses[:10] == ["200"] * 10
    assert "429" in statuses
    answer = site.get("/demo/api/auth/login")
    assert (answer.status, answer.header("Retry-After"), answer.json["title"]) == (429, "1", "Too many requests")
    assert site.get("/demo/api/echo").status == 200


def test_a_crowd_is_slowed_down_and_health_checks_are_not(site: Any) -> None:
    site.sh(
        """
        for path in /crowd /health; do
          seq 900 | sed "s|.*|url = https://127.0.0.1$path\\noutput = /dev/null|" >/tmp/urls
          curl -sk -K /tmp/urls --parallel --parallel-max 50 -w '%{http_code}\\n' | sort | uniq -c >/tmp$path
        done
        """
    )
    assert " 429" in site.sh("cat /tmp/crowd")
    assert site.sh("cat /tmp/health").split() == ["900", "200"]


def test_maintenance_closes_everything_but_health(site: Any) -> None:
    flag = "/etc/nginx/pergola/maintenance"
    site.sh(f"touch {flag}")
    page = site.get("/demo/", "-H", "Accept: text/html")
    assert (page.status, page.header("Retry-After")) == (503, "300")
    assert "Maintenance" in page.body
    assert page.header("X-Request-ID") in page.body
    problem = site.get("/demo/api/echo")
    assert (problem.status, problem.json["title"], problem.header("Content-Type")) == (
        503,
        "Maintenance",
        "application/problem+json",
    )
    for path in ("/health", "/health/ready"):
        assert site.get(path).status == 200
    site.sh(f"rm {flag}")
    assert site.get("/demo/api/echo").status == 200


def test_internal_pages_cannot_be_asked_for(site: Any) -> None:
    assert site.get("/.pergola/page").status == 404
    assert site.get("/.pergola/problem").status == 404
    assert site.get("/demo/_stcore/metrics").status == 404
    assert site.get("/demo/_stcore/health").status == 200


def test_nginx_comes_back_when_it_is_killed(site: Any) -> None:
    before = site.master()
    site.sh("systemctl kill --signal=KILL nginx.service")
    site.sh("for i in $(seq 100); do curl -sk -o /dev/null https://127.0.0.1/health && exit; sleep 0.1; done; exit 1")
    assert site.master() != before


def test_logs_are_rotated(site: Any) -> None:
    site.sh(
        "logrotate --version >/dev/null 2>&1 || apt-get install -qy --no-install-recommends logrotate >/dev/null 2>&1; logrotate --force /etc/logrotate.d/nginx"
    )
    answer = site.get("/demo/api/echo")
    assert site.log(answer.header("X-Request-ID"))["status"] == 200


def test_the_binary_can_be_upgraded_without_a_gap(site: Any) -> None:
    before = site.master()
    site.sh("/etc/init.d/nginx upgrade >/tmp/upgrade 2>&1 || { cat /tmp/upgrade; exit 1; }; sleep 1")
    assert site.get("/demo/api/echo").status == 200
    assert site.sh("systemctl is-active nginx.service").strip() == "active"
    assert site.master() != before
