"""Runs modules on this machine in copies of one interpreter that has loaded what they need."""

from __future__ import annotations

import contextlib
import fcntl
import json
import multiprocessing
import os
import re
import selectors
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from ansible import constants
from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as LocalConnection
from ansible.utils.display import Display

DOCUMENTATION = r"""
name: warm
short_description: run modules on this machine without starting Python for each
description:
  - Does what C(ansible.builtin.local) does, in a third of the processor's time for modules that talk to AWS. The first module of a run
    starts an interpreter that loads boto3, the collection's and Ansible's own utilities, and each module then runs in a fork of it.
  - The interpreter ends with the run that started it. Whatever is no module for the controller's own Python (a command of another
    interpreter, C(become)), and everything on other systems than Linux, runs as with C(ansible.builtin.local).
author: Pergola
version_added: 0.1.0
options:
  become_success_timeout:
    type: int
    default: 10
    description: Seconds to wait for C(become) to succeed.
    vars:
      - name: ansible_local_become_success_timeout
  become_strip_preamble:
    type: bool
    default: true
    description: Strip what C(become) prints before a command's own output.
    vars:
      - name: ansible_local_become_strip_preamble
extends_documentation_fragment:
  - connection_pipelining
"""

display = Display()
SERVER = Path(__file__).resolve().parents[1] / "warm_python.py"
START_SECONDS = 120.0
ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


class Connection(LocalConnection):  # type: ignore[misc]
    """A local connection whose modules run in forks of one interpreter."""

    transport = "warm"

    def exec_command(
        self,
        cmd: str,
        in_data: bytes | None = None,
        sudoable: bool = True,  # noqa: FBT001, FBT002 - Ansible calls it so
    ) -> tuple[int, bytes, bytes]:
        """Run a command on this machine; return its exit code, output and errors.

        Raises:
            AnsibleConnectionFailure: The interpreter ended while a module ran in it.
        """
        # elsewhere than on Linux what a library has loaded may not survive a fork
        usable = sys.platform == "linux" and in_data and not self.become
        environment = module_environment(cmd) if usable else None
        if in_data and environment is not None:
            try:
                server = connect(Path(constants.DEFAULT_LOCAL_TMP), run_pid())
            except OSError as error:
                display.warning(f"no warm interpreter, so each module starts its own, which takes longer: {error}")
            else:
                with server:
                    return ask(server, in_data, {**os.environ, **environment}, self.cwd or str(Path.cwd()))
        done: tuple[int, bytes, bytes] = super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        return done


def run_pid() -> int:
    """Return the process id of the run that this is a worker of, whether it still lives or not."""
    # one that was killed has left its workers to init, which never ends: an interpreter that waits for that would stay for good
    parent = multiprocessing.parent_process()
    return parent.pid if parent is not None and parent.pid else os.getpid()


def module_environment(command: object) -> dict[str, str] | None:
    """Return what a command assigns to its environment, if all that it does is to start the controller's Python; None otherwise."""
    try:
        words = shlex.split(command) if isinstance(command, str) else []
        if words[:2] != ["/bin/sh", "-c"] or len(words) != 3:
            return None
        words = shlex.split(words[2])
    except ValueError:
        return None
    if words[-3:] == ["&&", "sleep", "0"]:
        words = words[:-3]
    found = [ASSIGNMENT.fullmatch(word) for word in words[:-1]]
    if not words or words[-1] != sys.executable or not all(found):
        return None
    return {match[1]: match[2] for match in found if match}


def connect(folder: Path, controller: int) -> socket.socket:
    """Connect to the interpreter of this run, and start it when none runs.

    Args:
        folder: Where its socket is; nobody else may enter it.
        controller: Process id of the run: the interpreter ends with it.

    Raises:
        OSError: It cannot be started.
    """
    path = folder / "warm.sock"
    with (folder / "warm.lock").open("w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            return _connected(path)
        path.unlink(missing_ok=True)
        log = folder / "warm.log"
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, str(SERVER), str(path), str(controller), *_collections()],
                stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise OSError(log.read_text(encoding="utf-8", errors="replace").strip()[-500:] or "it did not start")
            time.sleep(0.02)
        return _connected(path)


def ask(server: socket.socket, payload: bytes, environment: Mapping[str, str], folder: str) -> tuple[int, bytes, bytes]:
    """Have the interpreter run a module; return its exit code, output and errors."""
    streams = [os.pipe(), os.pipe()]
    with tempfile.TemporaryFile() as given:
        given.write(payload)
        # the environment may be larger than what one message of a socket holds, so it goes into the file too
        given.write(json.dumps({"environment": dict(environment), "folder": folder}).encode())
        given.seek(0)
        socket.send_fds(server, [struct.pack("!Q", len(payload))], [given.fileno(), streams[0][1], streams[1][1]])
    for _, writing in streams:
        os.close(writing)
    output = _read({reading: bytearray() for reading, _ in streams})
    code = server.recv(4, socket.MSG_WAITALL)
    if len(code) != 4:
        raise AnsibleConnectionFailure("the interpreter that modules run in has ended while one ran; run this again")
    return struct.unpack("!i", code)[0], bytes(output[0]), bytes(output[1])


def _connected(path: Path) -> socket.socket:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.connect(str(path))
    except OSError:
        server.close()
        raise
    return server


def _collections() -> list[str]:
    """Return the folder that this run takes its AWS collection from: it need not be the one beside Ansible."""
    package = sys.modules.get("ansible_collections.amazon.aws")
    return [str(Path(package.__path__[0]).parents[2])] if package is not None and package.__path__ else []


def _read(buffers: dict[int, bytearray]) -> list[bytearray]:
    with selectors.DefaultSelector() as selector:
        for reading in buffers:
            selector.register(reading, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if block := os.read(key.fd, 1 << 16):
                    buffers[key.fd] += block
                else:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return list(buffers.values())
