#!/usr/bin/python
"""Ansible module for AWS resources that no collection has a module for."""

DOCUMENTATION = r"""
---
module: aws_ensure
short_description: Ensure an AWS resource that no collection has a module for
description:
  - Reads a resource through one call of boto3, compares it with what is wanted and, when they differ, creates or updates it.
  - Compared is what O(want) names and nothing else. JSON in text is compared as data, numbers in text as numbers, and lists of
    plain values without their order.
  - With neither O(create) nor O(delete) it only reads.
  - Several resources of a service are looked after in one run with O(resources), which is quicker than a loop.
options:
  service:
    description: The service as boto3 calls it, such as V(ec2).
    type: str
    required: true
  read:
    description: How the resource is read. Needed where there are no O(resources).
    type: dict
    suboptions: &reading
      call: &method
        description: The client's method.
        type: str
        required: true
      args: &arguments
        description: Its arguments.
        type: dict
        default: {}
      select:
        description: A JMESPath to the resource in the answer; nothing there means that it does not exist.
        type: str
        default: "@"
  want:
    description: What the resource should be, as far as it matters; V({}) asks only that it exists.
    type: dict
    default: {}
  create:
    description: How it is made.
    type: dict
    suboptions: &calling
      call: *method
      args: *arguments
  update:
    description: How one that differs is changed; the same way as it is made when left out.
    type: dict
    suboptions: *calling
  delete:
    description: How it is removed; only with O(state=absent).
    type: dict
    suboptions: *calling
  absent_errors:
    description: Error codes of O(read) that mean it does not exist, besides those with C(NotFound) or C(NoSuch) in them.
    type: list
    elements: str
    default: []
  state:
    description: Whether it should be there.
    type: str
    choices: [present, absent]
    default: present
  resources:
    description:
      - Several resources instead of one, in their order. What one says of O(want), O(create), O(update), O(delete),
        O(absent_errors) and O(state) is its own; what it leaves out is what these options say.
      - The first that AWS refuses ends the run; those before it stay as they were made.
    type: list
    elements: dict
    suboptions:
      name:
        description: What the answer and an error call it.
        type: str
        required: true
      read:
        description: As O(read).
        type: dict
        required: true
        suboptions: *reading
      want:
        description: As O(want).
        type: dict
      create:
        description: As O(create).
        type: dict
        suboptions: *calling
      update:
        description: As O(update).
        type: dict
        suboptions: *calling
      delete:
        description: As O(delete).
        type: dict
        suboptions: *calling
      absent_errors:
        description: As O(absent_errors).
        type: list
        elements: str
      state:
        description: As O(state).
        type: str
        choices: [present, absent]
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
- name: The site has its dashboard
  aws_ensure:
    service: cloudwatch
    read: {call: get_dashboard, args: {DashboardName: site}}
    absent_errors: [ResourceNotFound]
    want: {DashboardBody: "{{ body | to_json }}"}
    create: {call: put_dashboard, args: {DashboardName: site, DashboardBody: "{{ body | to_json }}"}}

- name: The latest backup vault is known
  aws_ensure:
    service: backup
    read: {call: describe_backup_vault, args: {BackupVaultName: site}}
  register: vault

- name: Both queues wait as long as they should
  aws_ensure:
    service: sqs
    resources: "{{ lookup('ansible.builtin.template', 'queues.yml.j2') | from_yaml }}"
"""

RETURN = r"""
resources:
  description: For each of O(resources) its name, and changed, resource, differences and result as for one.
  returned: with resources
  type: list
  elements: dict
resource:
  description: The resource as it is now, null when there is none. In check mode, as it was.
  returned: without resources
  type: dict
differences:
  description: Where it was not as wanted, as paths into O(want); V(absent) when it did not exist.
  returned: without resources
  type: list
  elements: str
result:
  description: What the call that changed it answered.
  returned: when something was changed, without resources
  type: dict
"""

import json  # noqa: E402 - Ansible wants the documentation first
from typing import Any  # noqa: E402

try:
    import botocore.exceptions
    import jmespath
except ImportError:
    pass  # AnsibleAWSModule says so

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402

OWN = ("want", "create", "update", "delete", "absent_errors", "state")
CALL = {"call": {"type": "str", "required": True}, "args": {"type": "dict", "default": {}}}


def plain(value: Any) -> Any:
    """Return a value in the form in which two spellings of the same thing are equal."""
    if isinstance(value, dict):
        return {key: plain(child) for key, child in value.items()}
    if isinstance(value, list):
        items = [plain(child) for child in value]
        return items if any(isinstance(item, (dict, list)) for item in items) else sorted(items, key=repr)
    if isinstance(value, str) and value.strip()[:1] in ("{", "["):
        try:
            return plain(json.loads(value))
        except ValueError:
            return value
    try:
        return value if isinstance(value, bool) or value is None else float(value)
    except ValueError:
        return value


def differences(want: Any, have: Any, path: str = "") -> list[str]:
    """Return the paths at which ``have`` is not what ``want`` says; what ``want`` does not name does not matter."""
    if isinstance(want, dict):
        if not isinstance(have, dict):
            return [path or "."]
        return [line for key, child in want.items() for line in differences(child, have.get(key), f"{path}.{key}")]
    if isinstance(want, list):
        if not isinstance(have, list) or len(want) != len(have):
            return [path]
        return [
            line
            for position, (wanted, found) in enumerate(zip(want, have, strict=True))
            for line in differences(wanted, found, f"{path}[{position}]")
        ]
    return [] if want == have else [path]


def read(client: Any, how: dict[str, Any], absent_errors: list[str]) -> Any:
    """Return the resource, or None when it does not exist."""
    try:
        answer = getattr(client, how["call"])(**how["args"])
    except botocore.exceptions.ClientError as error:
        code = error.response["Error"]["Code"]
        if "NotFound" in code or "NoSuch" in code or code in absent_errors:
            return None
        raise
    return jmespath.search(how["select"], data(answer)) or None


def data(answer: dict[str, Any]) -> Any:
    """Return an answer of boto3 as plain data."""
    kept = {key: value for key, value in answer.items() if key != "ResponseMetadata"}
    return json.loads(json.dumps(kept, default=str))


def ensure(client: Any, params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Make the resource what is wanted, and return what the module returns."""
    have = read(client, params["read"], params["absent_errors"])
    if params["state"] == "absent":
        how, found = params["delete"], ["present"] if have else []
    else:
        found = ["absent"] if have is None else differences(plain(params["want"]), plain(have))
        how = params["create"] if have is None else params["update"] or params["create"]
    if not found or how is None:
        return {"changed": False, "differences": found, "resource": have}
    if check_mode:
        return {"changed": True, "differences": found, "resource": have}
    result = data(getattr(client, how["call"])(**how["args"]))
    now = read(client, params["read"], params["absent_errors"])
    return {"changed": True, "differences": found, "resource": now, "result": result}


def several(client: Any, params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Make each of the resources what is wanted, in order, and return what the module returns."""
    rows = []
    for one in params["resources"]:
        own = {**{key: params[key] for key in OWN}, **{key: value for key, value in one.items() if value is not None}}
        try:
            rows.append({"name": one["name"], **ensure(client, own, check_mode=check_mode)})
        except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
            raise RefusedError(one["name"], error) from error
    return {"changed": any(row["changed"] for row in rows), "resources": rows}


class RefusedError(Exception):
    """AWS refused one of several resources."""

    def __init__(self, name: str, reason: Exception) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason = name, reason


def main() -> None:
    """Read, compare, and change what differs."""
    how = {
        "want": {"type": "dict"},
        "create": {"type": "dict", "options": CALL},
        "update": {"type": "dict", "options": CALL},
        "delete": {"type": "dict", "options": CALL},
        "absent_errors": {"type": "list", "elements": "str"},
        "state": {"type": "str", "choices": ["present", "absent"]},
    }
    reading = {"type": "dict", "options": {**CALL, "select": {"type": "str", "default": "@"}}}
    module = AnsibleAWSModule(
        argument_spec={
            "service": {"type": "str", "required": True},
            "resources": {
                "type": "list",
                "elements": "dict",
                "options": {"name": {"type": "str", "required": True}, "read": {**reading, "required": True}, **how},
            },
            "read": reading,
            **how,
            "want": {"type": "dict", "default": {}},
            "absent_errors": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        mutually_exclusive=[("read", "resources")],
        required_one_of=[("read", "resources")],
        supports_check_mode=True,
    )
    params = module.params
    every = params["resources"] if params["resources"] is not None else [params]
    if any((one["state"] or params["state"]) == "absent" and not (one["delete"] or params["delete"]) for one in every):
        module.fail_json(msg="state=absent needs delete: how it is removed")
    calls = sorted(
        {
            given[key]["call"]
            for given in [params, *every]
            for key in ("read", "create", "update", "delete")
            if given[key]
        }
    )
    what = params["service"]
    try:
        client = module.client(params["service"])
        unknown = [call for call in calls if not hasattr(client, call)]
        if unknown:
            module.fail_json(msg=f"boto3's client for {params['service']} has no {', '.join(unknown)}")
        act = ensure if params["resources"] is None else several
        module.exit_json(**act(client, params, check_mode=module.check_mode))
    except RefusedError as refused:
        what, error = f"{what}, {refused.name}", refused.reason
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as refused:
        error = refused
    if isinstance(error, botocore.exceptions.ParamValidationError):
        module.fail_json(msg=f"{what}: arguments that boto3 does not know: {error}")
    module.fail_json_aws(error, msg=f"{what}: AWS refused {' or '.join(calls)}")


if __name__ == "__main__":
    main()
