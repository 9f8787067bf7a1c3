"""A live Streamlit session over its WebSocket, as a browser holds one."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

ANSWER_SECONDS = 30.0


class SessionCutError(Exception):
    """The server ended the session, or it came back as another one."""


@dataclass
class Session:
    """One visitor with one open page."""

    socket: websockets.ClientConnection
    slot: str | None
    session_id: str = ""

    async def rerun(self) -> float:
        """Run the page's script once more and wait for its end; return the seconds.

        Raises:
            SessionCutError: The socket closed, or no end came in time.
        """
        message = BackMsg()
        message.rerun_script.query_string = ""
        began = asyncio.get_running_loop().time()
        try:
            await self.socket.send(message.SerializeToString())
            while True:
                raw = await asyncio.wait_for(self.socket.recv(), ANSWER_SECONDS)
                forward = ForwardMsg()
                forward.ParseFromString(raw if isinstance(raw, bytes) else raw.encode())
                kind = forward.WhichOneof("type")
                if kind == "new_session":
                    found = forward.new_session.initialize.session_id
                    if self.session_id and found != self.session_id:
                        raise SessionCutError(f"the session {self.session_id[:8]} came back as {found[:8]}")
                    self.session_id = found
                elif kind == "delta" and forward.delta.new_element.WhichOneof("type") == "exception":
                    raise SessionCutError(f"the page shows an exception: {forward.delta.new_element.exception.message}")
                elif kind == "script_finished":
                    return asyncio.get_running_loop().time() - began
        except TimeoutError:
            raise SessionCutError(f"no answer for {ANSWER_SECONDS:.0f} s") from None
        except websockets.ConnectionClosed as error:
            raise SessionCutError(
                f"the socket was closed ({error.rcvd.code if error.rcvd else 'without a close frame'})"
            ) from error


async def connect(base: str, path: str, tls: ssl.SSLContext | None) -> Session:
    """Open a page like a browser: fetch it for its cookies, then open its WebSocket.

    Args:
        base: For example ``https://127.0.0.1:8443``.
        path: The app's path, for example ``/wine/``.
        tls: TLS settings; None for plain http.
    """
    async with httpx.AsyncClient(verify=tls if tls is not None else True) as client:
        page = await client.get(f"{base}{path}")
        page.raise_for_status()
        cookies = dict(client.cookies.items())
    address = urlsplit(f"{base}{path}")
    uri = f"{'wss' if address.scheme == 'https' else 'ws'}://{address.netloc}{path}_stcore/stream"
    header = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
    socket = await websockets.connect(
        uri,
        ssl=tls,
        additional_headers=header,
        origin=websockets.Origin(f"{address.scheme}://{address.netloc}"),
        subprotocols=[websockets.Subprotocol("streamlit")],
        max_size=None,
        open_timeout=20,
    )
    slots = [value for name, value in cookies.items() if name.startswith("pergola_slot_")]
    return Session(socket=socket, slot=slots[0] if slots else None)
