"""Shows the journal of a host's failed units when a task fails on it, so that a red scenario explains itself."""

from __future__ import annotations

import subprocess
from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: host_journal
type: notification
short_description: Shows the journal of failed units when a task fails
description:
  - When a task fails on a container, prints the journal of its failed units, or its last warnings when no unit failed.
requirements:
  - docker
"""

# Run on the host: one text for the callback and for the verifier's conftest.
SCRIPT = r"""
failed=$(systemctl list-units --failed --plain --no-legend | cut -d' ' -f1)
if [ -n "$failed" ]; then
  for unit in $failed; do
    systemctl status --no-pager --lines=0 "$unit"
    journalctl --no-pager --quiet --output=short-precise --lines=60 --unit="$unit"
  done
else
  echo 'no unit has failed; the last warnings of the host:'
  journalctl --no-pager --quiet --output=short-precise --lines=30 --priority=warning
fi
"""


def journal(container: str) -> str:
    """Return the journal of the failed units in ``container``, or why it cannot be read."""
    try:
        run = subprocess.run(
            ["docker", "exec", container, "sh", "-c", SCRIPT],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the journal of {container} cannot be read: {error}"
    return run.stdout + run.stderr


class CallbackModule(CallbackBase):
    """Prints ``journal`` after a failed task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "host_journal"
    CALLBACK_NEEDS_ENABLED = True

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature is Ansible's
        """Show the journal unless the failure was expected."""
        host = result.host.get_name()
        if not ignore_errors and host != "localhost":
            self._display.display(f"--- journal of {host}\n{journal(host)}---", color="bright red")
