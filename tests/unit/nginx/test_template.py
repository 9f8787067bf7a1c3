"""nginx.conf as the role would write it: rendered with Ansible's own engine, accepted by a real nginx, for any set of apps."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core import manifest, plan
from roles.nginx.files import nginx_certificate

ROLE = Path(__file__).parents[3] / "roles/nginx"
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin:/opt/homebrew/bin")
BROTLI = Path("/usr/lib/nginx/modules/ngx_http_brotli_filter_module.so")
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt install nginx-light")

loader = DataLoader()
defaults = loader.load_from_file(str(ROLE / "defaults/main.yml"), trusted_as_template=True)
role_vars = loader.load_from_file(str(ROLE / "vars/main.yml"), trusted_as_template=True)
template = trust_as_template((ROLE / "templates/nginx.conf.j2").read_text())


def render(site: Any, *, version: str = "1.26.3", inet6: bool = True, **variables: Any) -> str:
    """Render the template with the role's defaults, the plan ``site`` and other variables."""
    values = {
        **copy.deepcopy(defaults),
        **role_vars,
        "ansible_managed": "Ansible managed",
        "ansible_facts": {"tcp_listen": []},
        "__nginx_said": {"stderr": f"nginx version: nginx/{version}"},
        "__nginx_inet6": {"stat": {"exists": inet6}},
        "nginx_plan": site,
        **variables,
    }
    return str(Templar(loader, values).template(template, overrides={"trim_blocks": True}))


def apps(*manifests: dict[str, Any]) -> dict[str, Any]:
    """Derive the plan of some manifests, given by what is special about each."""
    words = {"title": "An app", "summary": "It does something"}
    return plan.build([manifest.check({**words, **raw}, folder=Path(raw["name"])) for raw in manifests])


WINE = {"name": "wine", "api": {"app": "app.wine.api:app"}, "ui": {"script": "app/wine/ui.py"}}
PORTAL = {"name": "portal", "path": "/", "api": {"app": "app.portal.api:app"}}


@dataclass(frozen=True)
class Sandbox:
    """A folder in which this machine's nginx can test what was written for a host."""

    folder: Path

    def complaint(self, text: str) -> str:
        """Return what nginx has to say against a configuration; nothing when it accepts it."""
        moved = (
            text.replace("/etc/nginx/pergola", f"{self.folder}/pergola")
            .replace("include /etc/nginx/mime.types;", "")
            .replace("include /etc/nginx/modules-enabled/*.conf;", f"load_module {BROTLI};" if BROTLI.exists() else "")
            .replace("/run/nginx/", f"{self.folder}/")
            .replace("/var/log/nginx/", f"{self.folder}/")
            .replace("\nhttp {", "\nhttp {" + "".join(f"{name}_temp_path {self.folder};" for name in TEMPORARY))
        )
        conf = self.folder / "nginx.conf"
        conf.write_text(moved)
        assert NGINX is not None
        done = subprocess.run([NGINX, "-t", "-q", "-c", conf], capture_output=True, text=True, check=False)
        return done.stderr if done.returncode else ""


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    home = folder / "pergola/tls"
    home.mkdir(parents=True)
    place = nginx_certificate.Place(home=home, conf=folder / "none", group=None)
    assert nginx_certificate.selfsigned(place, ["localhost"], 90, 30)
    return Sandbox(folder)


@pytest.fixture(scope="module")
def installed(sandbox: Sandbox) -> dict[str, Any]:
    """Return what to tell the template about this machine."""
    assert NGINX is not None
    said = subprocess.run([NGINX, "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/([0-9.]+)", said)
    assert found, said
    # unprivileged ports: nginx -t binds them
    return {
        "version": found[1],
        "inet6": Path("/proc/net/if_inet6").exists(),
        "nginx_brotli": BROTLI.exists(),
        "nginx_http_port": 18480,
        "nginx_https_port": 18443,
    }


def server(text: str) -> str:
    """Return the block that serves the apps."""
    return text.rpartition("\n    server {")[2]


def locations(text: str) -> list[str]:
    """Return the locations of that block as nginx tells them apart."""
    return re.findall(r"^        location (.+) \{$", server(text), re.MULTILINE)


def block(text: str, location: str) -> str:
    """Return the directives of one location."""
    return server(text).partition(f"\n        location {location} {{\n")[2].partition("\n        }")[0]


names = st.from_regex(r"[a-z][a-z0-9]{0,15}", fullmatch=True).filter(lambda name: name != "core")
folders = st.from_regex(r"/[a-z0-9][a-z0-9-]{0,30}/", fullmatch=True)
sizes = st.builds("{}{}".format, st.integers(1, 999), st.sampled_from("KMG"))


@st.composite
def app_sets(draw: st.DrawFn) -> list[manifest.Manifest]:
    """Any set of manifests that the loader accepts on one host."""
    # names that could be mistaken for something of nginx, of the role or of Streamlit
    tempting = st.sampled_from(["http", "cookie", "arg", "static", "api", "ui", "default", "error", "upstream", "auth"])
    chosen = draw(st.lists(names | tempting, unique=True, max_size=7))
    taken: set[str] = set()
    found = []
    for number, name in enumerate(chosen):
        kinds = draw(st.sampled_from(["api", "ui", "both"]))
        path = draw(st.none() | folders | tempting.map("/{}/".format))
        if number == 0 and draw(st.booleans()):
            path, kinds = "/", "api"
        raw: dict[str, Any] = {"name": name, "title": name, "summary": "Any app", "limits": {}}
        raw |= {"path": path} if path is not None else {}
        raw |= {"api": {"app": f"app.{name}.api:app"}} if kinds != "ui" else {}
        raw |= {"ui": {"script": f"app/{name}/ui.py"}} if kinds != "api" else {}
        raw["limits"] = {"upload": draw(sizes), "request_seconds": draw(st.integers(1, 3600))}
        try:
            checked = manifest.check(raw, folder=Path(name))
        except manifest.ManifestError:
            continue  # a reserved path: the loader refuses it, so no host ever sees it
        if checked.path not in taken:
            taken.add(checked.path)
            found.append(checked)
    return found


@needs_nginx
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(site=app_sets(), hosts=st.sampled_from([[], ["app.example.org"]]), proxies=st.sampled_from([[], ["10.0.0.0/8"]]))
def test_nginx_accepts_any_set_of_apps(
    sandbox: Sandbox,
    installed: dict[str, Any],
    site: Sequence[manifest.Manifest],
    hosts: list[str],
    proxies: list[str],
) -> None:
    derived = plan.build(site)
    text = render(derived, **installed, nginx_server_names=hosts, nginx_trusted_proxies=proxies)
    assert sandbox.complaint(text) == ""
    found = locations(text)
    assert len(found) == len(set(found))
    for entry in derived["locations"]:
        assert entry["path"] in found


@needs_nginx
def test_nginx_refuses_what_is_wrong(sandbox: Sandbox, installed: dict[str, Any]) -> None:
    text = render(apps(WINE), **installed, nginx_extra_server="proxy_pas http://nowhere;")
    assert 'unknown directive "proxy_pas"' in sandbox.complaint(text)


EVERYTHING = {
    "nginx_server_names": ["a.example.org", "b.example.org"],
    "nginx_trusted_proxies": ["10.0.0.0/8", "2001:db8::/32"],
    "nginx_rate_exempt": ["127.0.0.1", "::1"],
    "nginx_log_health_checks": True,
    "nginx_hsts_seconds": 0,
    "nginx_extra_http": "limit_conn_zone $binary_remote_addr zone=mine:1m;",
    "nginx_extra_server": "limit_conn mine 100;\nclient_body_timeout 31s;",
    "nginx_security_headers": {},
}


@needs_nginx
@pytest.mark.parametrize("variables", [{}, EVERYTHING, {"nginx_hsts_include_subdomains": True}])
def test_nginx_accepts_every_setting(sandbox: Sandbox, installed: dict[str, Any], variables: dict[str, Any]) -> None:
    for site in ({}, apps(PORTAL), apps(WINE, PORTAL)):
        assert sandbox.complaint(render(site, **{**installed, **variables})) == ""


def test_both_spellings_of_http_2() -> None:
    old, new = (render(apps(WINE), version=version) for version in ("1.22.1", "1.26.3"))
    assert "listen 443 ssl http2 default_server;" in old
    assert "http2 on;" not in old
    assert "listen 443 ssl default_server;" in new
    assert "http2 on;" in new


def test_ipv6_is_left_out_where_the_kernel_has_none() -> None:
    assert "listen [::]:443" in render({})
    assert "[::]" not in render({}, inet6=False)
    assert "[::]" not in render({}, nginx_ipv6=False)


def test_limits_come_from_the_manifest() -> None:
    site = apps({**WINE, "limits": {"upload": "25M", "request_seconds": 90}}, PORTAL)
    text = render(site)
    api, ui = block(text, "/wine/api/"), block(text, "/wine/")
    assert "client_max_body_size 26214400;" in api
    assert "client_max_body_size 26214400;" in ui
    assert "proxy_read_timeout 90s;" in api
    assert f"proxy_read_timeout {site['ladder']['websocket_read_seconds']}s;" in ui or "proxy_read_timeout 90s;" in ui
    assert f"keepalive_timeout {site['ladder']['nginx_keepalive_seconds']}s;" in text


def test_only_screens_may_upgrade() -> None:
    text = render(apps(WINE, PORTAL))
    assert "set $pergola_websocket 1;" in block(text, "/wine/")
    for path in ("/wine/api/", "/"):
        assert "pergola_websocket" not in block(text, path)


def test_requests_go_where_the_plan_says() -> None:
    text = render(apps(WINE, PORTAL))
    assert "proxy_pass http://wine_api/;" in block(text, "/wine/api/")
    assert "proxy_pass http://wine_api/static/;" in block(text, "/wine/api/static/")
    assert "proxy_pass http://$pergola_wine_ui;" in block(text, "/wine/")
    assert "proxy_pass http://portal_api;" in block(text, "/")
    assert "map $cookie_pergola_slot_wine $pergola_wine_ui {" in text
    assert "server unix:/run/pergola/route/wine/ui max_fails=0 backup;" in text
    assert "keepalive 0" not in text


def test_compression_is_on_for_static_folders_only() -> None:
    text = render(apps(WINE, PORTAL))
    compressed = [location for location in locations(text) if "gzip on;" in block(text, location)]
    assert sorted(compressed) == ["/static/", "/wine/api/static/", "/wine/static/"]
    assert text.count("gzip on;") == text.count("brotli on;") == 3
    assert "brotli" not in render(apps(WINE), nginx_brotli=False)


def test_without_an_app_at_the_root_nginx_answers_health_itself() -> None:
    text = render(apps(WINE))
    assert "return 200" in block(text, "= /health")
    assert "return 404;" in block(text, "/")
    assert "= /health" not in locations(render(apps(PORTAL)))


def test_unknown_names_are_refused_only_where_names_are_known() -> None:
    assert "return 421;" not in render(apps(PORTAL))
    text = render(apps(PORTAL), nginx_server_names=["app.example.org"])
    assert "return 421;" in text
    assert text.count("server_name app.example.org;") == 2
    assert len(re.findall(r"listen 443 ssl default_server;", text)) == 1


@pytest.mark.parametrize(
    ("port", "location"), [(443, "https://$host$request_uri"), (8443, "https://$host:8443$request_uri")]
)
def test_redirects_know_the_public_port(port: int, location: str) -> None:
    text = render(apps(PORTAL), nginx_public_port=port)
    assert f"return 308 {location};" in text
    assert f"error_page 497 =308 {location};" in text


def test_nobody_is_trusted_by_default() -> None:
    text = render(apps(PORTAL))
    assert "set_real_ip_from" not in text
    assert "proxy_add_x_forwarded_for" not in text
    assert "set_real_ip_from 10.0.0.0/8;" in render(apps(PORTAL), nginx_trusted_proxies=["10.0.0.0/8"])


def test_only_modern_tls_is_offered() -> None:
    text = render(apps(PORTAL), nginx_server_names=["app.example.org"])
    assert set(re.findall(r"ssl_protocols (.*);", text)) == {"TLSv1.2 TLSv1.3"}
    ciphers = re.findall(r"ssl_ciphers (.*);", text)
    assert len(set(ciphers)) == 1
    assert all("GCM" in cipher or "CHACHA20" in cipher for cipher in ciphers[0].split(":"))
    assert text.count("ssl_session_tickets off;") == text.count("ssl_certificate ")


@pytest.fixture
def holders() -> Callable[..., list[str]]:
    """Ask the role which ports are held, for a list of listening programs."""

    def ask(*listening: tuple[int, str, int]) -> list[str]:
        facts = {"tcp_listen": [{"port": port, "name": name, "pid": pid} for port, name, pid in listening]}
        values = {**defaults, **role_vars, "ansible_facts": facts}
        return list(Templar(loader, values).template(trust_as_template("{{ __nginx_port_holders }}")))

    return ask


def test_the_holder_of_a_port_is_named(holders: Any) -> None:
    assert holders((22, "sshd", 1), (80, "nginx", 2)) == []
    assert holders((80, "apache2", 7), (80, "apache2", 7), (443, "", 9)) == [
        "Port 80 is held by apache2 (pid 7)",
        "Port 443 is held by an unknown program (pid 9)",
    ]


def test_every_variable_is_documented_and_every_documented_one_exists() -> None:
    options = loader.load_from_file(str(ROLE / "meta/argument_specs.yml"))["argument_specs"]["main"]["options"]
    assert list(options) == list(defaults)
    for name, option in options.items():
        assert option["default"] == defaults[name], name
        assert option["description"], name
