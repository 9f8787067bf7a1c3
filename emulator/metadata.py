"""The instance metadata service, version 2: on a socket that exists only inside a VPC's namespace."""

from __future__ import annotations

import base64
import json
import secrets
import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from emulator.world import ACCOUNT, World

ROLE_HOURS = 6


def serve(world: World, sock: socket.socket) -> None:
    """Answer metadata requests on a socket, in the background."""
    tokens: dict[str, tuple[str, float]] = {}  # token: whose, until when

    class Metadata(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def reply(self, status: int, text: str | bytes = b"") -> None:
            body = text.encode() if isinstance(text, str) else text
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_PUT(self) -> None:
            """Hand out a token, unless a proxy passes the request on."""
            seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
            if self.path != "/latest/api/token" or not seconds.isdigit():
                self.reply(400)
            elif "X-Forwarded-For" in self.headers:
                self.reply(403)
            else:
                token = secrets.token_urlsafe(32)
                tokens[token] = self.client_address[0], time.monotonic() + int(seconds)
                self.reply(200, token)

        def do_GET(self) -> None:
            """Answer from the metadata of the instance that asks."""
            with world.lock:
                found = [
                    i
                    for i in world.backend("ec2").all_instances()
                    if i.private_ip == self.client_address[0] and i.state == "running"
                ]
                if not found or found[0].metadata_options.http_endpoint == "disabled":
                    return self.reply(403)
                owner, until = tokens.get(self.headers.get("X-aws-ec2-metadata-token", ""), ("", 0.0))
                valid = owner == self.client_address[0] and time.monotonic() < until
                if not valid and (
                    "X-aws-ec2-metadata-token" in self.headers or found[0].metadata_options.http_tokens == "required"
                ):
                    return self.reply(401)
                answer = look(world, found[0], self.path)
            return self.reply(404 if answer is None else 200, answer or b"")

    server = ThreadingHTTPServer(("", 0), Metadata, bind_and_activate=False)
    server.socket.close()
    server.socket = sock
    threading.Thread(target=server.serve_forever, name="metadata", daemon=True).start()


def look(world: World, instance: Any, path: str) -> str | bytes | None:
    """Return what is at a path: a value, or the names below it."""
    version, _, rest = path.strip("/").partition("/")
    if version != "latest":
        return None
    if rest == "user-data":
        return base64.b64decode(str(instance.user_data)) if instance.user_data else None
    tree = document(world, instance)
    rest = rest.strip("/")
    if rest in tree:
        value = tree[rest]
        return (
            json.dumps(credentials(world, value.removeprefix("role ")))
            if rest.startswith("meta-data/iam/security-cred")
            else value
        )
    below = {key[len(rest) :].lstrip("/") for key in tree if not rest or key.startswith(f"{rest}/")}
    return "\n".join(sorted({key.partition("/")[0] + ("/" if "/" in key else "") for key in below})) if below else None


def document(world: World, instance: Any) -> dict[str, str]:
    """Return an instance's metadata by path."""
    region, zone = world.settings.region, str(instance.placement.zone)
    groups = world.backend("autoscaling").autoscaling_groups.values()
    phase = next((s.lifecycle_state for g in groups for s in g.instance_states if s.instance is instance), None)
    identity = {"accountId": ACCOUNT, "architecture": instance.architecture, "availabilityZone": zone, "imageId": instance.image_id,
                "instanceId": instance.id, "instanceType": instance.instance_type, "privateIp": instance.private_ip,
                "region": region, "version": "2017-09-30"}  # fmt: skip
    data = {
        "ami-id": instance.image_id, "instance-id": instance.id, "instance-type": instance.instance_type,
        "hostname": instance.private_dns_name, "local-hostname": instance.private_dns_name, "local-ipv4": instance.private_ip,
        "mac": instance.nics[0].mac_address, "public-ipv4": instance.public_ip, "placement/availability-zone": zone,
        "placement/region": region, "security-groups": "\n".join(g.name for g in instance.security_groups),
        "services/domain": "amazonaws.com", "services/partition": "aws",
    }  # fmt: skip
    if phase:
        data["autoscaling/target-lifecycle-state"] = "Terminated" if phase.startswith("Terminating") else "InService"
    if instance.metadata_options.instance_metadata_tags == "enabled":
        data |= {f"tags/instance/{tag['key']}": tag["value"] for tag in instance.get_tags()}
    profile = world.backend("ec2").iam_instance_profile_associations.values()
    for kept in (p.iam_instance_profile for p in profile if p.instance_id == instance.id):
        data["iam/info"] = json.dumps({"Code": "Success", "InstanceProfileArn": kept.arn, "InstanceProfileId": kept.id})
        data |= {f"iam/security-credentials/{role.name}": f"role {role.arn}" for role in kept.roles}
    known = {f"meta-data/{key}": str(value) for key, value in data.items() if value}
    return {**known, "dynamic/instance-identity/document": json.dumps(identity)}


def credentials(world: World, role: str) -> dict[str, str]:
    """Return credentials of a role, new ones each time."""
    made = world.backend("sts", "aws").assume_role(
        world.settings.region, "instance", role, None, ROLE_HOURS * 3600, None
    )
    now, form = datetime.now(UTC), "%Y-%m-%dT%H:%M:%SZ"
    return {"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": now.strftime(form), "AccessKeyId": made.access_key_id,
            "SecretAccessKey": made.secret_access_key, "Token": made.session_token,
            "Expiration": (now + timedelta(hours=ROLE_HOURS)).strftime(form)}  # fmt: skip
