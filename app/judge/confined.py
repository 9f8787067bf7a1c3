"""Becomes a program within limits; started by `app.judge.confine`. Imports next to nothing: it runs for every call of git.

python -I -S confined.py PARENT MEMORY FILE CPU FILES program arguments...
"""

import ctypes
import os
import resource
import signal
import sys

PR_SET_PDEATHSIG = 1
NOT_FOUND = 127
NO_PROGRAM = "confined: there is no "


def main(arguments: list[str]) -> None:
    """Set the limits and become the program."""
    parent, memory, file, cpu, files = (int(one) for one in arguments[:5])
    command = arguments[5:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that
            os._exit(1)
        _limit(resource.RLIMIT_AS, memory)  # macOS refuses it
    _limit(resource.RLIMIT_FSIZE, file)
    _limit(resource.RLIMIT_CPU, cpu)
    _limit(resource.RLIMIT_NOFILE, files)
    _limit(resource.RLIMIT_CORE, 0)
    try:
        os.execvp(command[0], command)  # noqa: S606 - that is what this script is for: no shell
    except FileNotFoundError:
        sys.stderr.write(f"{NO_PROGRAM}{command[0]}\n")
        sys.stderr.flush()
        os._exit(NOT_FOUND)


def _limit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (most, most))


if __name__ == "__main__":
    main(sys.argv[1:])
