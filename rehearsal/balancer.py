"""Load balancers as HAProxy: listeners, rules, weights, stickiness, and health checks as the target groups say."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import http.client
import io
import json
import re
import ssl
import time
from concurrent.futures import Future, ThreadPoolExecutor
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from emulator.checks import Check, Checks, matches
from emulator.world import RehearsalError, Traffic, World, forwarded, serving
from rehearsal.containers import ask_socket, connect_inside, create, docker, image, inside, process, remove, run
from rehearsal.network import Networks

RECIPE = """FROM {base}
RUN apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends haproxy postgresql \\
 && apt-get clean
"""
HEAD = """global
  stats socket /lb/admin.sock mode 600 level admin expose-fd listeners
  maxconn 4000
  hard-stop-after 1h
defaults
  mode http
  timeout connect 5s
  timeout client {idle}s
  timeout server {idle}s
  timeout http-keep-alive {idle}s
  option idle-close-on-response
  option redispatch
  retries 2
  default-server init-addr none
"""


def services_image(name: str, base: str) -> str:
    """Return the image with HAProxy and PostgreSQL, built when it is not there."""
    recipe = RECIPE.format(base=base)
    key = hashlib.sha256((recipe + docker("image", "inspect", "-f", "{{.Id}}", base)).encode()).hexdigest()[:12]
    return image(name, f"rehearsal/services:{key}", recipe)


class Balancers:
    """The loop of load balancers."""

    def __init__(self, world: World, networks: Networks) -> None:
        self.world, self.networks, self.checks = world, networks, Checks(world)
        self.running: dict[str, str] = {}  # load balancer: its configuration
        self.numbers: dict[str, int] = {}  # load balancer: which ports it has
        self.pending: dict[tuple[str, str], Future[tuple[Check, str | None, str]]] = {}
        self.pool = ThreadPoolExecutor(16, "health")
        world.counters = self.counters

    def step(self) -> None:
        """Check the targets that are due, then put the balancers' configuration in force."""
        self.checks.fresh.clear()
        for check in self.checks.due(self.pending):
            self.pending[check.group, check.target] = self.pool.submit(self._check, check)
        for key in [key for key, check in self.pending.items() if check.done()]:
            self.checks.note(*self.pending.pop(key).result())
        with self.world.lock:
            there = self.world.backend("elbv2").load_balancers
            self.numbers = {arn: number for arn, number in self.numbers.items() if arn in there}
            for arn in there:
                self.numbers.setdefault(arn, min(set(range(len(there))) - set(self.numbers.values()), default=0))
            plans = [self._plan(self.numbers[b.arn], b) for b in there.values()]
        for gone in set(self.running) - {plan[0] for plan in plans}:
            remove(f"{self.world.settings.name}-lb-{short(gone)}")
            self.running.pop(gone)
            self.world.processes.pop(gone, None)
            self.world.addresses.pop(gone, None)
        for plan in plans:
            self._apply(*plan)
        self._drain()
        with self.world.lock:  # a target is called healthy when requests reach it
            groups = self.world.backend("elbv2").target_groups
            self.world.health.update(
                {k: v for k, v in self.checks.fresh.items() if k[0] in groups and k[1] in groups[k[0]].targets}
            )

    def counters(self) -> dict[tuple[str, str], Traffic]:
        """Return what HAProxy has counted, by load balancer and target group."""
        with self.world.lock:
            groups = {short(arn): arn for arn in self.world.backend("elbv2").target_groups}
        found = {}
        for arn in list(self.running):
            with contextlib.suppress(OSError):
                told = ask_socket(
                    self.world.settings.directory / "balancers" / short(arn) / "admin.sock", "show stat\n"
                )
                for row in csv.DictReader(io.StringIO(told.removeprefix("# "))):
                    if row["svname"] == "BACKEND" and row["pxname"] in groups:
                        requests, ok, wrong, broken, took = (
                            float(row[key] or 0) for key in ("req_tot", "hrsp_2xx", "hrsp_4xx", "hrsp_5xx", "ttime")
                        )
                        found[arn, groups[row["pxname"]]] = Traffic(requests, (ok, wrong, broken), took / 1000)
        return found

    # ------------------------------------------------------------------ health
    @staticmethod
    def _check(check: Check) -> tuple[Check, str | None, str]:
        """Return a check with the reason code and words of its failure."""
        try:
            with connect_inside(check.balancer, check.address, check.port, check.timeout) as plain:
                if check.scheme == "TCP":
                    return check, None, ""
                sock = plain
                if check.scheme == "HTTPS":  # AWS does not check a target's certificate either
                    sock = ssl._create_unverified_context().wrap_socket(plain)  # noqa: S323, SLF001  see above
                client = http.client.HTTPConnection(check.address, check.port)
                client.sock = sock
                client.request(
                    "GET", check.path, headers={"User-Agent": "ELB-HealthChecker/2.0", "Connection": "close"}
                )
                status = client.getresponse().status
                sock.close()
        except TimeoutError:
            return check, "Target.Timeout", "Request timed out"
        except (OSError, http.client.HTTPException) as error:
            return check, "Target.FailedHealthChecks", f"Health checks failed: {error}"
        if matches(status, check.codes):
            return check, None, ""
        return check, "Target.ResponseCodeMismatch", f"Health checks failed with these codes: [{status}]"

    def _drain(self) -> None:
        """Count the connections that are open to targets which were deregistered; close them when the delay is over."""
        world, leaving, now = self.world, [], time.monotonic()
        with world.lock:
            elb, ec2 = world.backend("elbv2"), world.backend("ec2")
            kept = {target for group in elb.target_groups.values() for target in group.targets}
            over = {key for key, until in world.draining.items() if until < now}
            for group, target in world.draining:
                instance = ec2.get_instance_by_id(target)
                if instance is not None and instance.state == "running":
                    pids = [world.processes[b] for b in serving(elb, group) if b in world.processes]
                    leaving.append(((group, target), instance.private_ip, pids))
            for key in over:
                del world.draining[key]
        found = {}
        for key, address, pids in leaving:
            close = key in over and key[1] not in kept  # what serves in another group keeps its connections
            count = sum(connections(pid, address, close=close) for pid in pids)
            if key not in over:
                found[key] = count
            elif close and count:
                world.say(f"{key[1]}: the deregistration delay is over, {count} connections are closed")
        world.open = found

    # ------------------------------------------------------------------ configuration
    def _plan(self, number: int, balancer: Any) -> tuple[str, int, str, str, str, dict[str, str]]:
        """Return a balancer's ARN, number, VPC, VPC's range and files."""
        ec2 = self.world.backend("ec2")
        vpc = balancer.vpc_id or balancer.subnets[0].vpc_id
        subnet = IPv4Network(balancer.subnets[0].cidr_block)
        self.world.addresses[balancer.arn] = str(subnet[-10 - number])
        files: dict[str, str] = {}
        lines = [HEAD.format(idle=max(1, round(float(balancer.attrs.get("idle_timeout.timeout_seconds", 60)))))]
        for listener in sorted(balancer.listeners.values(), key=lambda entry: int(entry.port)):
            lines += self._listener(balancer, listener, files)
        used = {arn for listener in balancer.listeners.values() for arn in forwarded(listener)}
        for arn in sorted(used):
            group = self.world.backend("elbv2").target_groups.get(arn)
            if group is not None:
                lines += self._group(group)
        files["haproxy.cfg"] = "\n".join([*lines, ""])
        return balancer.arn, number, vpc, ec2.get_vpc(vpc).cidr_block, self.world.addresses[balancer.arn], files

    def _listener(self, balancer: Any, listener: Any, files: dict[str, str]) -> list[str]:
        bind = f"  bind :{listener.port}"
        if listener.protocol == "HTTPS":
            for number, arn in enumerate(listener.certificates):
                kept = self.world.backend("acm", arn.split(":")[3]).get_certificate(arn)
                parts = [
                    p.decode() if isinstance(p, bytes) else str(p or "") for p in (kept.cert, kept.key, kept.chain)
                ]
                files[f"{listener.port}-{number}.pem"] = "\n".join(parts)
                bind += f" {'' if number else 'ssl '}crt /lb/{listener.port}-{number}.pem"
            bind += f" alpn h2,http/1.1 ssl-min-ver {'TLSv1.3' if 'TLS13-1-3' in (listener.ssl_policy or '') else 'TLSv1.2'}"
        lines = [f"frontend l{listener.port}", bind, f"  http-request set-header X-Forwarded-Proto {listener.protocol.lower()}",
                 f"  http-request set-header X-Forwarded-Port {listener.port}", "  option forwardfor",
                 "  http-request set-header X-Amzn-Trace-Id Root=1-%[uuid] unless { req.hdr(X-Amzn-Trace-Id) -m found }"]  # fmt: skip
        if balancer.attrs.get("routing.http.drop_invalid_header_fields.enabled") == "true":
            lines.append("  http-request del-header [^A-Za-z0-9-] -m reg")
        rules = sorted(
            (r for r in listener.rules.values() if str(r.priority) != "default"), key=lambda r: int(r.priority)
        )
        chosen = [(" ".join(map(match, rule.conditions)), rule.actions) for rule in rules]
        for number, (condition, actions) in enumerate([*chosen, ("", listener.default_actions)]):
            # the first rule that matches decides; HAProxy alone would redirect before it forwards
            lines.append(f"  http-request set-var(txn.rule) int({number}) if {condition} !{{ var(txn.rule) -m found }}")
            for action in actions:
                data = action.data if hasattr(action, "data") else action
                lines += self._action(
                    data, f"{{ var(txn.rule) -m int {number} }}", f"{listener.port}_{number}", balancer.arn
                )
        return lines

    def _action(self, action: dict[str, Any], when: str, name: str, balancer: str) -> list[str]:
        if action["Type"] == "redirect":
            return self._redirect(action["RedirectConfig"], when, self.numbers[balancer])
        if action["Type"] == "fixed-response":
            fixed = action["FixedResponseConfig"]
            kind, body = fixed.get("ContentType") or "text/plain", json.dumps(fixed.get("MessageBody") or "")
            return [f'  http-request return status {fixed["StatusCode"]} content-type "{kind}" string {body} if {when}']
        if action["Type"] != "forward":
            return [f"  http-request return status 501 if {when}"]
        return self._forward(action, when, name)

    def _redirect(self, config: dict[str, Any], when: str, number: int) -> list[str]:
        """Redirect; who came through a port of this machine is sent to one."""
        to = {key: value for key, value in config.items() if value}
        path, query = to.get("Path", "/#{path}"), to.get("Query", "#{query}")
        where = (
            "%[pathq]"
            if (path, query) == ("/#{path}", "#{query}")
            else path.replace("/#{path}", "%[path]") + f"?{query}"
        )
        where = where.replace("#{query}", "%[query]")
        host = to.get("Host", "#{host}").replace("#{host}", "%[req.hdr(host),field(1,:)]")
        scheme, code = to.get("Protocol", "HTTPS").lower(), to["StatusCode"][-3:]
        inner = to.get("Port", "443") if to.get("Port") != "#{port}" else "443"
        ports = self.world.settings.ports(number)
        seen = f"{{ req.hdr(host) -m end :{ports[80]} :{ports[443]} }}"
        return [f"  http-request redirect code {code} location {scheme}://{host}:{port}{where} if {when} {condition}"
                for port, condition in ((ports.get(int(inner), inner), seen), (inner, f"!{seen}"))]  # fmt: skip

    def _forward(self, action: dict[str, Any], when: str, name: str) -> list[str]:
        """Choose a target group by weight, once for each request; a cookie keeps the choice when the rule says so."""
        config = action.get("ForwardConfig") or {}
        groups = config.get("TargetGroups") or [{"TargetGroupArn": action["TargetGroupArn"]}]
        shares = [(t["TargetGroupArn"], int(t.get("Weight", 1))) for t in groups]
        total, below = sum(weight for _, weight in shares), 0
        if not total:
            return [f"  http-request return status 503 if {when}"]
        sticky = config.get("TargetGroupStickinessConfig") or {}
        lines = [f"  http-request set-var(txn.w{name}) rand({total})"]
        keep = str(sticky.get("Enabled")).lower() == "true" and len(shares) > 1
        for arn, weight in shares if keep else ():
            if weight:
                lines.append(f"  use_backend {short(arn)} if {when} {{ req.cook(AWSALBTG) -m str {short(arn)} }}")
        for arn, weight in shares:
            below += weight
            if weight:
                lines.append(f"  use_backend {short(arn)} if {when} {{ var(txn.w{name}) -m int lt {below} }}")
        if keep:
            age = sticky.get("DurationSeconds", 3600)
            lines.append(
                f'  http-response add-header Set-Cookie "AWSALBTG=%[be_name]; Path=/; Max-Age={age}" if {when}'
            )
        return lines

    def _group(self, group: Any) -> list[str]:
        attributes, ec2 = group.attributes, self.world.backend("ec2")
        least = attributes.get("load_balancing.algorithm.type") == "least_outstanding_requests"
        lines = [f"backend {short(group.arn)}", f"  balance {'leastconn' if least else 'roundrobin'}"]
        sticky = str(attributes.get("stickiness.enabled")).lower() == "true"
        if sticky:
            age = int(attributes.get("stickiness.lb_cookie.duration_seconds") or 86400)
            lines.append(f"  cookie AWSALB insert indirect nocache maxlife {age}s")
        secure = " ssl verify none" if group.protocol == "HTTPS" else ""
        targets = {key: t for key, t in group.targets.items()
                   if (i := ec2.get_instance_by_id(key)) is None or i.state == "running"}  # fmt: skip
        states = {
            key: self.checks.fresh.get((group.arn, key), self.world.health_of(group.arn, key)).state for key in targets
        }
        healthy = [key for key in targets if states[key] == "healthy"]
        failed = [key for key in targets if states[key] == "unhealthy"]
        for key in healthy or (
            failed if len(failed) == len(targets) else []
        ):  # all of them sick: AWS asks them all the same
            instance = ec2.get_instance_by_id(key)
            cookie = f" cookie {hashlib.sha256(key.encode()).hexdigest()[:12]}" if sticky else ""
            lines.append(
                f"  server {key} {instance.private_ip if instance else key}:{targets[key]['Port']}{secure}{cookie}"
            )
        return lines

    def _apply(self, arn: str, number: int, vpc: str, cidr: str, address: str, files: dict[str, str]) -> None:
        settings, text = self.world.settings, json.dumps(files)
        container = f"{settings.name}-lb-{short(arn)}"
        if self.running.get(arn) == text:
            return
        folder = settings.directory / "balancers" / short(arn)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_text(content)
        if arn not in self.running:
            base = services_image(settings.name, settings.image)
            options = [
                *self.networks.ensure(vpc, cidr),
                f"--ip={address}",
                f"--volume={folder}:/lb",
                "--restart=on-failure",
            ]
            options += [f"--publish=127.0.0.1:{outer}:{inner}" for inner, outer in settings.ports(number).items()]
            remove(container)
            create(container, settings.name, base, ["haproxy", "-W", "-db", "-f", "/lb/haproxy.cfg"], options, {})
            self.world.processes[arn] = process(container)
        else:
            docker("exec", container, "haproxy", "-c", "-q", "-f", "/lb/haproxy.cfg")
            docker("kill", "--signal", "USR2", container)
            self._settle(folder / "admin.sock", files["haproxy.cfg"])
        self.running[arn] = text

    @staticmethod
    def _settle(sock: Path, config: str) -> None:
        """Wait until HAProxy has taken over its new configuration."""
        wanted = set(re.findall(r"^  server (\S+)", config, re.MULTILINE))
        for _ in range(50):
            with contextlib.suppress(OSError):
                rows = ask_socket(sock, "show stat\n").splitlines()[1:]
                if wanted == {row.split(",")[1] for row in rows if row} - {"FRONTEND", "BACKEND"}:
                    return
            time.sleep(0.1)
        raise RehearsalError(f"HAProxy did not take its configuration over within 5 s: {sock.parent / 'haproxy.cfg'}")


def short(arn: str) -> str:
    """Return a name for HAProxy and Docker of a target group or load balancer."""
    name, identity = arn.split("/")[-2:]
    return f"{name}-{identity[:8]}"


def connections(balancer: int, address: str, *, close: bool) -> int:
    """Return how many connections a balancer's network has to an address, which may be closed on the way."""
    with inside(balancer):
        return len(run("ss", "-Htn", *(["-K"] if close else []), "state", "established", "dst", address).splitlines())


def match(condition: dict[str, Any]) -> str:
    """Return HAProxy's form of a rule's condition."""
    field = condition["Field"]
    config: dict[str, Any] = next(
        (condition[key] for key in condition if key.endswith("Config") and condition[key]), {}
    )
    values = config.get("Values") or condition.get("Values") or []
    pattern = "|".join(
        "^" + re.sub(r"\\([*?])", lambda m: {"*": ".*", "?": "."}[m[1]], re.escape(str(v))) + "$" for v in values
    )
    if field == "query-string":
        return (
            " ".join(f"{{ url_param({v['Key']}) -m str {v['Value']} }}" for v in values if v.get("Key"))
            or "{ always_false }"
        )
    return {
        "path-pattern": f"{{ path -m reg {pattern} }}",
        "host-header": f"{{ req.hdr(host),field(1,:) -m reg -i {pattern} }}",
        "http-header": f"{{ req.hdr({config.get('HttpHeaderName', 'none')}) -m reg -i {pattern} }}",
        "http-request-method": f"{{ method {' '.join(map(str, values))} }}",
        "source-ip": f"{{ src {' '.join(map(str, values))} }}",
    }[field]
