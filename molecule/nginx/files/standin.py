"""Stands in for one slot of the apps `front` and `demo`: answers on their unix sockets, says which one it is and what it saw.

    standin.py a

/echo            the request as JSON
/die?key=K       closes the connection the first time K is asked, answers the second time
/seen?key=K      how often /die was asked for K
/slow?seconds=S  answers late
/static/app.js   a script worth compressing
/own             sets its own security headers
any path with an upgrade to websocket: an echo
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SOCKETS = Path("/run/pergola/sock")
MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
seen: Counter[str] = Counter()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, who: str) -> None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        url = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        last = url.path.rpartition("/")[2]
        if headers.get("upgrade") == "websocket":
            await echo(reader, writer, headers, who)
            return
        more = {"X-Request-ID": "from-the-app", "Content-Type": "application/json"}
        if last == "die":
            seen[query["key"]] += 1
            if seen[query["key"]] == 1:
                return
        elif last == "slow":
            await asyncio.sleep(float(query["seconds"]))
        elif last == "own":
            more |= {"Content-Security-Policy": "default-src 'none'", "X-Frame-Options": "DENY"}
        answer = json.dumps(
            {
                "who": who,
                "method": method,
                "target": target,
                "headers": headers,
                "body_bytes": len(body),
                "seen": seen[query.get("key", "")],
            }
        ).encode()
        if last == "app.js":
            answer, more["Content-Type"] = b"/* a script */ let answer = 42;\n" * 200, "text/javascript"
        lines = [
            "HTTP/1.1 200 OK",
            f"Content-Length: {len(answer)}",
            "Connection: close",
            *(f"{name}: {value}" for name, value in more.items()),
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode() + (b"" if method == "HEAD" else answer))
        await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass  # the client has gone
    finally:
        writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: dict[str, str], who: str) -> None:
    accept = base64.b64encode(
        hashlib.sha1((headers["sec-websocket-key"] + MAGIC).encode(), usedforsecurity=False).digest()
    ).decode()
    writer.write(
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n".encode()
    )
    while True:
        first, second = await reader.readexactly(2)
        mask = await reader.readexactly(4)
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(second & 0x7F)))
        if first & 0x0F == 8:  # close
            return
        reply = f"{who}:".encode() + payload
        writer.write(bytes([0x81, len(reply)]) + reply)
        await writer.drain()


def clear(slot: str) -> None:
    SOCKETS.mkdir(parents=True, exist_ok=True)
    for left in SOCKETS.glob(f"*-{slot}.*.sock"):
        left.unlink()


async def main(slot: str) -> None:
    servers = []
    for name in ("front.api", "demo.api", "demo.ui"):
        app, _, kind = name.partition(".")
        path = SOCKETS / f"{app}-{slot}.{kind}.sock"
        who = f"{app}-{slot}.{kind}"
        servers.append(await asyncio.start_unix_server(lambda r, w, who=who: serve(r, w, who), path))
    await asyncio.gather(*(server.serve_forever() for server in servers))


clear(sys.argv[1])
asyncio.run(main(sys.argv[1]))
