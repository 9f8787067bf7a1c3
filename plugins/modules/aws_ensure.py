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
options:
  service:
    description: The service as boto3 calls it, such as V(ec2).
    type: str
    required: true
  read:
    description: How the resource is read.
    type: dict
    required: true
    suboptions:
      call:
        description: The client's method.
        type: str
        required: true
      args:
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
    suboptions:
      call:
        description: The client's method.
        type: str
        required: true
      args:
        description: Its arguments.
        type: dict
        default: {}
  update:
    description: How one that differs is changed; the same way as it is made when left out.
    type: dict
    suboptions:
      call:
        description: The client's method.
        type: str
        required: true
      args:
        description: Its arguments.
        type: dict
        default: {}
  delete:
    description: How it is removed; only with O(state=absent).
    type: dict
    suboptions:
      call:
        description: The client's method.
        type: str
        required: true
      args:
        description: Its arguments.
        type: dict
        default: {}
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
"""

RETURN = r"""
resource:
  description: The resource as it is now, null when there is none. In check mode, as it was.
  returned: always
  type: dict
differences:
  description: Where it was not as wanted, as paths into O(want); V(absent) when it did not exist.
  returned: always
  type: list
  elements: str
result:
  description: What the call that changed it answered.
  returned: when something was changed
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


def main() -> None:
    """Read, compare, and change what differs."""
    module = AnsibleAWSModule(
        argument_spec={
            "service": {"type": "str", "required": True},
            "read": {
                "type": "dict",
                "required": True,
                "options": {**CALL, "select": {"type": "str", "default": "@"}},
            },
            "want": {"type": "dict", "default": {}},
            "create": {"type": "dict", "options": CALL},
            "update": {"type": "dict", "options": CALL},
            "delete": {"type": "dict", "options": CALL},
            "absent_errors": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "absent", ["delete"])],
        supports_check_mode=True,
    )
    params = module.params
    calls = [params[key]["call"] for key in ("read", "create", "update", "delete") if params[key]]
    try:
        client = module.client(params["service"])
        unknown = [call for call in calls if not hasattr(client, call)]
        if unknown:
            module.fail_json(msg=f"boto3's client for {params['service']} has no {', '.join(unknown)}")
        module.exit_json(**ensure(client, params, check_mode=module.check_mode))
    except botocore.exceptions.ParamValidationError as error:
        module.fail_json(msg=f"{params['service']}: arguments that boto3 does not know: {error}")
    except (botocore.exceptions.ClientError, botocore.exceptions.BotoCoreError) as error:
        module.fail_json_aws(error, msg=f"{params['service']} refused {' or '.join(calls)}")


if __name__ == "__main__":
    main()
