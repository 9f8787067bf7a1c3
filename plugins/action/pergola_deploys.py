"""Action that runs ``python -m deploys`` and shows its progress while it runs."""

from __future__ import annotations

import getpass
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = ("deploy", "rollback", "status", "unfinished", "history", "settle", "record", "find", "prune", "bake")
MOVING = ("deploy", "rollback", "settle", "record", "prune", "bake")
display = Display()


class ActionModule(ActionBase):  # type: ignore[misc]  # Ansible ships no types
    """Hands a deploy to a process of its own; that one takes everything back when this one ends before it."""

    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run one command of ``deploys``.

        Arguments of the task: ``command``; ``deploy``, the plan's section of that name; ``releases``, by fleet the release's ``key`` and
        ``sha256`` (none for what moves nothing); ``options`` of the command.
        """
        result = super().run(tmp, task_vars)
        given = self._task.args
        command = given.get("command")
        if command not in COMMANDS:
            return {**result, "failed": True, "msg": f"command: expected one of {', '.join(COMMANDS)}, got {command!r}"}
        if self._task.check_mode and command in MOVING:
            command = "status"  # a preview moves nothing
        try:
            description = json.dumps(self._description(given))
        except (KeyError, TypeError) as error:
            return {**result, "failed": True, "msg": f"deploy: the description is not complete: {error}"}
        return {**result, **self._tell(command, description)}

    def _description(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the description of the deploy: the plan's section with the releases."""
        deploy, releases = dict(given["deploy"]), given.get("releases") or {}
        none = {"key": "", "sha256": "0" * 64}
        chosen = [row for row in deploy["fleets"] if not releases or row["name"] in releases]
        wanted = {name: {key: row[key] for key in none} for name, row in releases.items()}
        deploy["fleets"] = [{**row, "release": wanted.get(row["name"], none)} for row in chosen]
        deploy["operator"] = f"{getpass.getuser()}@{socket.gethostname()}"
        deploy["options"] = dict(given.get("options") or {})
        return deploy

    def _tell(self, command: str, description: str) -> dict[str, Any]:
        """Run the command, show what it says, and return its result."""
        process = subprocess.Popen(
            [sys.executable, "-m", "deploys", command], cwd=ROOT, text=True, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, **self._environment()},
        )  # fmt: skip
        if process.stdin is None or process.stdout is None or process.stderr is None:
            return {"failed": True, "msg": "the pipes to the deploy could not be made"}
        process.stdin.write(description + "\n")
        process.stdin.flush()
        last = ""
        for line in process.stdout:
            last = line.strip()
            if not last.startswith("{"):
                display.display(f"  {last}")
        process.stdin.close()
        errors = process.stderr.read()
        process.wait()
        try:
            answer: dict[str, Any] = json.loads(last)
        except ValueError:
            return {
                "failed": True,
                "msg": f"the deploy's process ended with {process.returncode}: {errors[-2000:] or last}",
            }
        return answer

    def _environment(self) -> dict[str, str]:
        """Return the task's environment as Ansible templated it."""
        found: dict[str, str] = {}
        for row in self._task.environment or []:
            found |= {str(key): str(value) for key, value in (self._templar.template(row) or {}).items()}
        return found
