#!/usr/bin/python
"""Ansible module for a CloudWatch dashboard."""

DOCUMENTATION = r"""
---
module: cloudwatch_dashboard
short_description: A CloudWatch dashboard
description:
  - Makes a dashboard what it should be, or removes it. No collection has a module for dashboards.
options:
  name:
    description: Name of the dashboard.
    type: str
    required: true
  body:
    description: What it shows, as CloudWatch's C(PutDashboard) takes it.
    type: dict
    default: {}
  state:
    description: Whether it is there.
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
  diff_mode:
    support: full
author: [Pergola contributors]
"""

EXAMPLES = r"""
- name: The dashboard says hello
  cloudwatch_dashboard:
    name: pergola-staging
    body: { widgets: [{ type: text, width: 24, height: 1, properties: { markdown: Hello } }] }
"""

RETURN = r"""
name:
  description: Name of the dashboard.
  returned: success
  type: str
"""

import json  # noqa: E402 - Ansible wants the documentation first
from typing import Any  # noqa: E402

from ansible_collections.amazon.aws.plugins.module_utils.botocore import is_boto3_error_code  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry  # noqa: E402
from botocore.exceptions import BotoCoreError, ClientError  # noqa: E402


def current(client: Any, name: str) -> dict[str, Any] | None:
    """Return the body of the dashboard, or None when there is none."""
    try:
        answer = client.get_dashboard(aws_retry=True, DashboardName=name)
    except is_boto3_error_code(["ResourceNotFound", "DashboardNotFoundError"]):
        return None
    body: dict[str, Any] = json.loads(answer["DashboardBody"])
    return body


def main() -> None:
    """Make the dashboard what it should be."""
    module = AnsibleAWSModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "body": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    name, want = module.params["name"], module.params["body"] if module.params["state"] == "present" else None
    client = module.client("cloudwatch", retry_decorator=AWSRetry.jittered_backoff())
    answer: dict[str, Any] = {}
    try:
        have = current(client, name)
        # numbers may have become text on their way through a template: the body as JSON is what counts
        changed = json.dumps(have, sort_keys=True) != json.dumps(want, sort_keys=True)
        if changed and not module.check_mode:
            if want is None:
                client.delete_dashboards(aws_retry=True, DashboardNames=[name])
            else:
                answer = client.put_dashboard(aws_retry=True, DashboardName=name, DashboardBody=json.dumps(want))
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg=f"The dashboard {name} could not be made what it should be")
    for message in answer.get("DashboardValidationMessages") or []:
        module.warn(f"dashboard {name}: {message.get('DataPath', '')} {message.get('Message', '')}")
    module.exit_json(changed=changed, name=name, diff={"before": have or {}, "after": want or {}})


if __name__ == "__main__":
    main()
