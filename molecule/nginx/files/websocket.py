"""Opens a WebSocket on this host, sends words, prints what comes back. At the word WAIT it waits for /run/websocket-go.

websocket.py PATH COOKIE WORD...
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from pathlib import Path

GO = Path("/run/websocket-go")

path, cookie, *words = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
with context.wrap_socket(socket.create_connection(("127.0.0.1", 443), timeout=10)) as connection:
    lines = [
        f"GET {path} HTTP/1.1",
        "Host: localhost",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
    ]
    lines += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", f"Cookie: {cookie}", "", ""]
    connection.sendall("\r\n".join(lines).encode())
    stream = connection.makefile("rb")
    print(stream.readline().decode().strip(), flush=True)
    while stream.readline() not in (b"\r\n", b""):
        pass
    for word in words:
        if word == "WAIT":
            while not GO.exists():
                time.sleep(0.1)
            continue
        mask = b"\1\2\3\4"
        payload = bytes(byte ^ mask[i % 4] for i, byte in enumerate(word.encode()))
        connection.sendall(bytes([0x81, 0x80 | len(payload)]) + mask + payload)
        _, length = stream.read(2)
        print(stream.read(length).decode(), flush=True)
