#!/usr/bin/python
"""Ansible module that compares an environment with its AWS account, and removes it from there."""

DOCUMENTATION = r"""
---
module: pergola_account
short_description: Compare an environment with its AWS account, or remove it from there
description:
  - With O(state=compared), reads what the account holds of the environment and says what C(cloud.yml) would make or change, what is
    there without being in the plan, and what each costs a month. It writes nothing.
  - With O(state=absent), removes one part of the environment, until nothing of it is there.
  - With O(state=guarded), reads what AWS would refuse to remove. It writes nothing.
  - With O(state=swept), reads what still has the environment's tags. It writes nothing.
options:
  root:
    description: The project's folder.
    type: path
    required: true
  plan:
    description: The cloud plan.
    type: dict
    required: true
  state:
    description: What to do.
    type: str
    choices: [compared, guarded, absent, swept]
    default: compared
  part:
    description: The part to remove.
    type: str
    choices: [hosts, watchers, way in, data, network, rest]
  seconds:
    description: How long to go on trying to remove.
    type: int
    default: 1800
  pause:
    description: Seconds between two rounds of that.
    type: float
    default: 5
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
author: [Pergola contributors]
"""

EXAMPLES = r"""
- name: The account is compared with the plan
  pergola_account:
    root: "{{ playbook_dir }}/.."
    plan: "{{ cloud }}"
  register: compared
"""

RETURN = r"""
text:
  description: The comparison as lines for a screen.
  returned: with state compared
  type: list
  elements: str
steps:
  description: One mapping a thing with action (make, change, remove, keep), kind, name, changes and usd.
  returned: with state compared
  type: list
  elements: dict
removed:
  description: What was removed, or would be.
  returned: with state absent
  type: list
  elements: str
guarded:
  description: What has deletion protection.
  returned: with state guarded
  type: list
  elements: str
left:
  description: ARNs that still have the environment's tags.
  returned: with state swept
  type: list
  elements: str
"""

import contextlib  # noqa: E402 - Ansible wants the documentation first
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

with contextlib.suppress(ImportError):  # AnsibleAWSModule says so
    import botocore.exceptions

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402


def main() -> None:
    """Compare, remove or sweep."""
    module = AnsibleAWSModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "plan": {"type": "dict", "required": True},
            "state": {"type": "str", "choices": ["compared", "guarded", "absent", "swept"], "default": "compared"},
            "part": {"type": "str", "choices": ["hosts", "watchers", "way in", "data", "network", "rest"]},
            "seconds": {"type": "int", "default": 1800},
            "pause": {"type": "float", "default": 5},
        },
        required_if=[("state", "absent", ["part"])],
        supports_check_mode=True,
    )
    sys.path.insert(0, str(Path(module.params["root"]).resolve()))
    try:
        from app.core.cloud import account, preview  # noqa: PLC0415 - the project's folder is known only now
    except ImportError as error:
        module.fail_json(
            msg=f"cannot import the project at {module.params['root']}: {error}; run `make venv` and use its Python"
        )
    plan, part = module.params["plan"], module.params["part"]
    here = account.Account(module.client, plan)
    try:
        if module.params["state"] == "swept":
            module.exit_json(changed=False, left=account.sweep(here))
        if module.params["state"] == "guarded":
            module.exit_json(changed=False, guarded=account.guarded(here))
        if module.params["state"] == "compared":
            steps = preview.compare(plan, account.found(here))
            rows = [
                {
                    "action": step.action,
                    "kind": step.thing.kind,
                    "name": step.thing.name,
                    "changes": list(step.changes),
                    "usd": float(step.usd),
                }
                for step in steps
            ]
            module.exit_json(changed=False, steps=rows, text=preview.text(steps, environment=plan["environment"]))
        if module.check_mode:
            things = account.found(here, part)
            module.exit_json(changed=bool(things), removed=[f"{thing.kind} {thing.name}" for thing in things])
        things, errors = account.remove(here, part, seconds=module.params["seconds"], pause=module.params["pause"])
        removed = [f"{thing.kind} {thing.name}" for thing in things]
        if errors:
            module.fail_json(
                msg="these are still there; put right what is said, then run this again:\n" + "\n".join(errors),
                removed=removed,
            )
        module.exit_json(changed=bool(removed), removed=removed)
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        module.fail_json_aws(error, msg="the account could not be read")


if __name__ == "__main__":
    main()
