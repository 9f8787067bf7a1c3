"""The AWS API on loopback: moto, with a log of every call, injected errors, and a door for the rehearsal's own commands."""

from __future__ import annotations

import datetime as dt
import io
import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from emulator.world import DOOR, World

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
SKEW = 900  # seconds by which the clock of who signs may be wrong, as on AWS
# keys that name a thing; a number or `member` after them counts the entries of a list
NAMING = re.compile(r"(?:name|id|identifier|arn)(?:s|list)?(?:\.member|\.\w*name|\.\w*id)?(?:\.\d+)?$", re.IGNORECASE)
FAULTS = {
    # kind: status, code; botocore retries all of them, as it must against AWS
    "throttle": (503, "SlowDown"),
    "error": (500, "InternalFailure"),
}


class Quiet(WSGIRequestHandler):
    """A request handler that leaves logging to the request log."""

    def log_request(self, *_: Any) -> None:
        """Say nothing."""


class Api:
    """A WSGI application: one call at a time into moto, since moto is not safe for threads."""

    def __init__(self, world: World, control: Callable[[str, dict[str, Any]], Any], where: str = "machine") -> None:
        from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app  # noqa: PLC0415

        self.world, self.control, self.where = world, control, where
        self.moto: Any = DomainDispatcherApplication(create_backend_app)
        self.log = (world.settings.directory / "requests.jsonl").open("a", buffering=1)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        path = str(environ.get("PATH_INFO", "/"))
        if path.startswith(DOOR):
            return self._own(path.removeprefix(DOOR), environ, start_response)
        service, action = describe(environ)
        names, query = named(environ), parse_qs(str(environ.get("QUERY_STRING", "")), keep_blank_values=True)
        statuses: list[str] = []

        def noted(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            statuses.append(status)
            return start_response(status, headers, *rest)

        answer: Iterable[bytes]
        if refusal := self._refusal(environ):
            answer = refuse(*refusal, environ, noted)
        else:
            with self.world.lock:
                answer = self.moto(environ, noted)
        entry = {"time": round(time.time(), 3), "from": self.where, "service": service, "action": action,
                 "method": environ["REQUEST_METHOD"], "path": path, "query": sorted(query), "names": names,
                 "status": int(statuses[0][:3]) if statuses else 0}  # fmt: skip
        self.log.write(json.dumps(entry) + "\n")
        return answer

    def _refusal(self, environ: Environ) -> tuple[tuple[int, str], str] | None:
        """Return the status, code and message with which a call is refused before it is looked at, if it is."""
        for kind, share in list(self.world.faults.items()):
            if random.random() < share:  # noqa: S311  not a secret
                return FAULTS[kind], "injected by the rehearsal"
        if abs(off := skew(environ)) > SKEW:
            return (403, skewed(environ)), f"the caller's clock is {off:.0f} s wrong"
        return None

    def _own(self, name: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if self.where != "machine":  # an instance has no say in its own faults
            start_response("404 Not Found", [("Content-Length", "0")])
            return [b""]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        try:
            status, answer = "200 OK", self.control(name, json.loads(body or b"{}"))
        except (KeyError, ValueError) as error:
            status, answer = "400 Bad Request", {"error": str(error.args[0] if error.args else error)}
        text = json.dumps(answer, default=str).encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(text)))])
        return [text]


def describe(environ: Environ) -> tuple[str, str]:
    """Return the service and action of a request; REST services have a method and a path for an action."""
    scope = str(environ.get("HTTP_AUTHORIZATION", "")).partition("Credential=")[2].split(",")[0].split("/")
    service = scope[3] if len(scope) > 4 else "unsigned"
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if target:
        return service, target.rsplit(".", 1)[-1]
    if str(environ.get("CONTENT_TYPE", "")).startswith("application/x-www-form-urlencoded"):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        environ["wsgi.input"] = io.BytesIO(body)
        action = parse_qs(body.decode(errors="replace")).get("Action")
        if action:
            return service, action[0]
    return service, f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '/')}"


def named(environ: Environ) -> list[str]:
    """Return the names, ids and ARNs that a call gives, which say what it is about; no other value of a call is kept."""
    length, kind = int(environ.get("CONTENT_LENGTH") or 0), str(environ.get("CONTENT_TYPE", ""))
    if not length or not kind.startswith(("application/x-www-form-urlencoded", "application/x-amz-json")):
        return []
    body = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(body)
    if "json" in kind:
        try:
            pairs = list(leaves(json.loads(body)))
        except ValueError:
            return []
    else:
        pairs = [(key, value) for key, values in parse_qs(body.decode(errors="replace")).items() for value in values]
    return sorted({value for key, value in pairs if NAMING.search(key) and len(value) < 300})


def leaves(data: Any, path: str = "") -> Iterable[tuple[str, str]]:
    """Yield each text in JSON with the dotted path to it, three levels deep at most."""
    if isinstance(data, str):
        yield path, data
    elif path.count(".") < 3:
        children = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
        for key, child in children:
            yield from leaves(child, f"{path}.{key}")


def skew(environ: Environ) -> float:
    """Return by how many seconds the clock of who signed a request is ahead; 0 without a signature."""
    signed = str(environ.get("HTTP_X_AMZ_DATE", ""))
    try:
        moment = dt.datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    except ValueError:
        return 0.0
    return moment.timestamp() - time.time()


def skewed(environ: Environ) -> str:
    """Return the code with which AWS refuses a request of another time."""
    if describe(environ)[0] == "s3":
        return "RequestTimeTooSkewed"
    json_of = "json" in str(environ.get("CONTENT_TYPE", ""))
    return "InvalidSignatureException" if json_of else "SignatureDoesNotMatch"


def refuse(fault: tuple[int, str], message: str, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with an error in the protocol of the call."""
    status, code = fault
    if "json" in str(environ.get("CONTENT_TYPE", "")):
        kind, text = "application/x-amz-json-1.1", json.dumps({"__type": code, "message": message})
    else:
        error = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        kind, text = "text/xml", f"<Response><Errors>{error}</Errors></Response>"
        if describe(environ)[0] == "s3":
            text = error
        elif describe(environ)[0] != "ec2":
            text = f"<ErrorResponse>{error}<RequestId>rehearsal</RequestId></ErrorResponse>"
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response(f"{status} Refused", [("Content-Type", kind), ("Content-Length", str(len(text)))])
    return [text.encode()]


def serve(application: Any, sock: socket.socket, name: str) -> BaseWSGIServer:
    """Serve a WSGI application on a listening socket, in the background."""
    host, port = sock.getsockname()[:2]
    server = make_server(host, port, application, threaded=True, request_handler=Quiet, fd=sock.fileno())
    sock.detach()
    threading.Thread(target=server.serve_forever, name=name, daemon=True).start()
    return server


def listen(address: str, port: int) -> socket.socket:
    """Return a listening TCP socket."""
    return socket.create_server((address, port), backlog=128)
