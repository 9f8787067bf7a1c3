"""The few things that both ASGI applications of an app, the API and the Streamlit screen, need to know of a request."""

import ipaddress

from starlette.datastructures import Headers
from starlette.types import Scope


def believe_nginx(scope: Scope) -> None:
    """Replace peer and scheme by what nginx says, when the connection came over a unix socket.

    Only nginx and the platform reach that socket, so nobody else can pretend. `X-Forwarded-For` is never used: a client
    can begin it with anything.
    """
    if not on_unix_socket(scope):
        return
    headers = Headers(scope=scope)
    if address := headers.get("X-Real-IP"):
        scope["client"] = (address, 0)
    if (scheme := headers.get("X-Forwarded-Proto")) in {"http", "https"}:
        scope["scheme"] = scheme.replace("http", "ws") if scope["type"] == "websocket" else scheme


def on_unix_socket(scope: Scope) -> bool:
    """True when the request came over a unix socket: such a server has a path and no port."""
    server = scope.get("server")
    return server is not None and server[1] is None and str(server[0]).startswith("/")


def through_proxy(scope: Scope) -> bool:
    """True when nginx passed the request on; false when somebody on the host asked this socket itself."""
    return "x-forwarded-for" in Headers(scope=scope)


def client_address(scope: Scope) -> str:
    """Address of the visitor; empty when unknown."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def is_loopback(address: str) -> bool:
    """True for an address of this very machine."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
