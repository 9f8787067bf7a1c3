"""An interpreter that has loaded what modules for AWS need, and runs each in a fork of itself.

    python plugins/warm_python.py SOCKET CONTROLLER [COLLECTIONS]

The connection plugin `warm` starts it. It listens on the unix socket SOCKET, in a folder that only its user can enter, and ends with the
process CONTROLLER. COLLECTIONS is the folder that holds `ansible_collections`, when it is not the one beside Ansible.

A request is the length of a module's code in bytes (8 bytes, big endian), with three open files: one that begins with the code, followed
by JSON with `environment` and `folder`; and two to write output and errors to. The answer is the exit code (4 bytes, big endian, signed).
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import struct
import sys
import traceback
import types
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

LOOK_SECONDS = 1.0  # how often it looks whether its controller is still there
NEEDED = (
    "boto3", "botocore.session", "botocore.client", "botocore.endpoint", "botocore.paginate", "botocore.parsers", "botocore.serialize",
    "botocore.signers", "botocore.validate", "botocore.waiter", "botocore.retries.adaptive", "botocore.retries.standard",
    "ansible.module_utils.basic", "ansible.module_utils._internal._ansiballz._loader",
    "base64", "runpy", "shutil", "tempfile", "zipfile", "zipimport",
)  # fmt: skip
AWS_UTILITIES = "ansible_collections.amazon.aws.plugins.module_utils"


class Payload:
    """Finds what only a module's own archive has: the packages around it were loaded from elsewhere."""

    @staticmethod
    def find_spec(name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Look into the archives that a module has put on the path."""
        package, dot, _ = name.rpartition(".")
        if not dot or not package.startswith("ansible"):
            return None
        folders = [f"{entry}/{package.replace('.', '/')}" for entry in sys.path if entry.endswith(".zip")]
        return PathFinder.find_spec(name, folders)


def load() -> None:
    """Import what modules import; what is not installed is left to the module, which says so better."""
    for name in NEEDED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    with contextlib.suppress(ImportError):
        package = importlib.import_module(AWS_UTILITIES)
        for found in pkgutil.iter_modules(package.__path__, f"{AWS_UTILITIES}."):
            with contextlib.suppress(ImportError):
                importlib.import_module(found.name)
    sys.meta_path.append(Payload)
    gc.collect()
    gc.freeze()  # what is loaded stays shared between the forks


def alive(controller: int) -> bool:
    """Whether the process that all this is done for is still there."""
    try:
        os.kill(controller, 0)
    except ProcessLookupError:
        return False
    return True


def serve(path: Path, controller: int) -> int | None:
    """Answer requests until the controller is gone; in a fork, return the exit code of the module that ran there."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that answered
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        born = path.with_suffix(".new")
        born.unlink(missing_ok=True)
        listening.bind(str(born))
        listening.listen(64)
        born.rename(path)  # whoever sees it can connect
        listening.settimeout(LOOK_SECONDS)
        while alive(controller):
            try:
                client, _ = listening.accept()
            except TimeoutError:
                continue
            if os.fork() == 0:
                listening.close()
                with client:
                    return answer(client)
            client.close()
    path.unlink(missing_ok=True)
    return None


def answer(client: socket.socket) -> int:
    """Run one module in a fork and tell how it ended; in that fork, return its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, _, _ = socket.recv_fds(client, 8, 3)
    if len(head) != 8 or len(files) != 3:
        return 1
    given, output, errors = files
    # nobody writes to this pipe: its end tells that the module has ended
    ended, held = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        client.close()
        os.close(ended)
        return run(struct.unpack("!Q", head)[0], given, output, errors)
    os.close(held)
    for file in files:
        os.close(file)
    ready, _, _ = select.select([ended, client.fileno()], [], [])
    if ended not in ready:  # whoever asked is gone: so is the reason for the module
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):
        client.sendall(struct.pack("!i", code if code >= 0 else 128 - code))
    os._exit(0)


def run(length: int, given: int, output: int, errors: int) -> int:
    """Run a module's code as if this interpreter had just been started for it, and return its exit code."""
    for file, number in ((given, 0), (output, 1), (errors, 2)):
        os.dup2(file, number)
        os.close(file)
    sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    try:
        with open(0, "rb", closefd=False) as stream:
            code = stream.read(length)
            told = json.loads(stream.read())
        os.environ.clear()
        os.environ.update(told["environment"])
        os.chdir(told["folder"])
        sys.argv = [""]
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        exec(compile(code, "<stdin>", "exec"), main.__dict__)  # noqa: S102 - what this is for
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        sys.stderr.write(f"{leaving.code}\n")
        return 1
    except BaseException:  # noqa: BLE001 - as the interpreter itself does at its end
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    if len(sys.argv) > 3:
        sys.path.insert(0, sys.argv[3])
    load()
    sys.exit(serve(Path(sys.argv[1]), int(sys.argv[2])))
