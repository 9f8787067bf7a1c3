"""Progress that fits one screen: a line a task with its seconds, errors in full, the slowest tasks at the end."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from ansible import constants as C  # noqa: N812 - Ansible's own habit
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: pergola
type: stdout
short_description: One line a task, with its seconds, and a timing summary
description:
  - Prints a line for every task that did something, with the time since the start, and the slowest tasks at the end.
  - Errors are printed with their whole message, readable, not as one line of JSON.
  - Refuses a second run of the same inventory from the same folder while one is going on.
extends_documentation_fragment: [result_format_callback]
options:
  slowest:
    description: How many of the slowest tasks the summary shows.
    type: int
    default: 5
    env: [{name: PERGOLA_SLOWEST}]
    ini: [{section: callback_pergola, key: slowest}]
  show_ok:
    description: Print tasks that changed nothing too.
    type: bool
    default: true
    env: [{name: PERGOLA_SHOW_OK}]
    ini: [{section: callback_pergola, key: show_ok}]
"""

LOCK_EXIT_CODE = 75  # EX_TEMPFAIL: try again later


class CallbackModule(CallbackBase):  # type: ignore[misc] # Ansible ships no types
    """The project's screen."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "pergola"

    def __init__(self) -> None:
        super().__init__()
        self._began = time.monotonic()
        self._running: dict[tuple[str, str], float] = {}
        self._spent: dict[str, tuple[float, str]] = {}
        self._lock: TextIO | None = None

    # -------------------------------------------------------------- lines

    def _line(self, state: str, text: str, color: str | None) -> None:
        self._display.display(f"{time.monotonic() - self._began:7.1f} s  {state:<8} {text}", color=color)

    def _label(self, result: Any) -> str:
        host = result._host.get_name()
        item = result._result.get("_ansible_item_label")
        return f"{result._task.get_name().strip()} [{host}]" + (f" ({item})" if item is not None else "")

    def _finish(self, result: Any) -> None:
        """Note the seconds of a task: those of its slowest host, as hosts run side by side."""
        task = result._task
        began = self._running.pop((result._host.get_name(), task._uuid), None)
        if began is not None:
            seconds = max(time.monotonic() - began, self._spent.get(task._uuid, (0, ""))[0])
            self._spent[task._uuid] = (seconds, task.get_name().strip())

    def _error(self, result: Mapping[str, Any]) -> None:
        shown = False
        for key in ("msg", "reason", "stderr", "module_stderr", "stdout"):
            value = result.get(key)
            if value and not (key == "stdout" and shown and result.get("stderr")):
                text = value if isinstance(value, str) else json.dumps(value, indent=1, default=str)
                for line in text.rstrip().splitlines():
                    self._display.display(f"           | {line}", color=C.COLOR_ERROR)
                shown = True

    # -------------------------------------------------------------- events

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Take the run lock; the kernel lets go of it when this process ends, however it ends."""
        self._spent.clear()
        if self._lock is not None:  # the next playbook of the same run
            return
        inventory = "_".join(map(_inventory_name, _inventories())) or "default"
        beside = Path(playbook._basedir).resolve()
        folder = next((one for one in (beside, *beside.parents) if (one / "ansible.cfg").exists()), beside)
        if not os.access(folder, os.W_OK):
            return
        path = folder / "build" / "run" / f"{inventory}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a+", encoding="utf-8")
        try:
            # not flock: Ansible's worker processes would inherit that, and outlive a killed run with it
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            self._display.error(
                f"another run on the inventory {inventory} is going on ({lock.read().strip() or 'starting'}); "
                "wait for it to end, then run this again"
            )
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(LOCK_EXIT_CODE)
        lock.seek(0)
        lock.truncate()
        lock.write(f"pid {os.getpid()}, since {time.strftime('%H:%M:%S')}")
        lock.flush()
        self._lock = lock

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Print the play's name."""
        self._display.display(f"\n{play.get_name().strip()}", color=C.COLOR_HIGHLIGHT)

    def v2_runner_on_start(self, host: Any, task: Any) -> None:
        """Start the clock of a task on a host."""
        self._running[host.get_name(), task._uuid] = time.monotonic()

    def v2_runner_on_skipped(self, result: Any) -> None:
        """Stop the clock."""
        self._finish(result)

    def v2_runner_on_ok(self, result: Any) -> None:
        """Print a task that ended well."""
        self._finish(result)
        if (
            result._result.get("results") is not None
            and "_ansible_item_label" not in result._result
            and result._task.loop
        ):
            if not result._result.get("changed") and self.get_option("show_ok"):
                self._line("ok", self._label(result), C.COLOR_OK)
        else:
            self._ended_well(result)

    def _ended_well(self, result: Any) -> None:
        if result._result.get("changed"):
            self._line("changed", self._label(result), C.COLOR_CHANGED)
        elif self.get_option("show_ok"):
            self._line("ok", self._label(result), C.COLOR_OK)
        if result._task.action in C._ACTION_DEBUG:
            text = result._result.get("msg", "")
            lines = text if isinstance(text, list) else str(text).splitlines()
            for line in lines:
                self._display.display(f"           | {line}")
        if self._display.verbosity:
            self._display.display(self._dump_results(result._result, indent=1))

    def v2_runner_item_on_ok(self, result: Any) -> None:
        """Print an item that changed."""
        if result._result.get("changed"):
            self._ended_well(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: FBT001, FBT002 - Ansible's signature
        """Print a failure with its whole message."""
        if "_ansible_item_label" not in result._result:
            self._finish(result)
        self._line(
            "ignored" if ignore_errors else "FAILED",
            self._label(result),
            C.COLOR_WARN if ignore_errors else C.COLOR_ERROR,
        )
        self._error(result._result)

    v2_runner_item_on_failed = v2_runner_on_failed

    def v2_runner_on_unreachable(self, result: Any) -> None:
        """Print an unreachable host."""
        self._finish(result)
        self._line("NO HOST", self._label(result), C.COLOR_UNREACHABLE)
        self._error(result._result)

    def v2_runner_retry(self, result: Any) -> None:
        """Print that a task waits for something."""
        left = result._result.get("retries", 0) - result._result.get("attempts", 0)
        self._line("waiting", f"{self._label(result)}, {left} tries left", C.COLOR_DEBUG)

    def v2_on_file_diff(self, result: Any) -> None:
        """Print what a file task changes, with --diff."""
        for part in result._result.get("results") or [result._result]:
            if part.get("diff") and part.get("changed"):
                self._display.display(self._get_diff(part["diff"]))

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Say that the inventory has no host for a play."""
        self._line("skipped", "the inventory has no such host", C.COLOR_SKIP)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Print the result a host, and the slowest tasks."""
        self._display.display("")
        for host in sorted(stats.processed):
            row = stats.summarize(host)
            bad = row["failures"] or row["unreachable"]
            color = C.COLOR_ERROR if bad else C.COLOR_CHANGED if row["changed"] else C.COLOR_OK
            self._display.display(
                f"{host:<24} ok={row['ok']} changed={row['changed']} failed={row['failures']} "
                f"unreachable={row['unreachable']} skipped={row['skipped']}",
                color=color,
            )
        slow = [row for row in sorted(self._spent.values(), reverse=True)[: self.get_option("slowest")] if row[0] >= 1]
        for seconds, name in slow:
            self._display.display(f"{seconds:7.1f} s  {name}", color=C.COLOR_SKIP)
        self._display.display(
            f"{time.monotonic() - self._began:7.1f} s  in all, {len(self._spent)} tasks", color=C.COLOR_SKIP
        )


def _inventories() -> list[str]:
    from ansible import context  # noqa: PLC0415 - filled by the command line just before

    given = context.CLIARGS.get("inventory") or C.DEFAULT_HOST_LIST
    return [str(source).rstrip("/") for source in (given if isinstance(given, (list, tuple)) else [given])]


def _inventory_name(source: str) -> str:
    """Return what an inventory is called: its folder, also when its file is given."""
    path = Path(source)
    return path.resolve().parent.name if path.is_file() else path.name
