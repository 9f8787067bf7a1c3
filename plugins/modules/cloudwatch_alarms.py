#!/usr/bin/python
"""Ansible module for all alarms of an environment at once."""

DOCUMENTATION = r"""
---
module: cloudwatch_alarms
short_description: The alarms of an environment, as one set
description:
  - Makes the alarms whose names begin with O(prefix) exactly those in O(alarms).
  - Others of that prefix that carry O(tags) are removed.
  - M(amazon.aws.cloudwatch_metric_alarm) always reports a change for alarms on metric maths, and takes a task for each alarm.
options:
  prefix:
    description: What the names of all the alarms begin with. Ends with a dash.
    type: str
    required: true
  alarms:
    description:
      - The alarms, as arguments of CloudWatch's C(PutMetricAlarm).
      - An empty list removes all of them.
    type: list
    elements: dict
    required: true
  tags:
    description: Tags of every alarm. An alarm without them is somebody else's and is never removed.
    type: dict
    required: true
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
- name: Somebody is told when the processors are busy
  cloudwatch_alarms:
    prefix: pergola-staging-
    tags: { Project: pergola, Environment: staging }
    alarms:
      - AlarmName: pergola-staging-cpu
        Namespace: AWS/EC2
        MetricName: CPUUtilization
        Dimensions: [{ Name: AutoScalingGroupName, Value: pergola-staging-main-blue }]
        Period: 300
        Statistic: Average
        EvaluationPeriods: 2
        ComparisonOperator: GreaterThanThreshold
        Threshold: 80
"""

RETURN = r"""
created:
  description: Names of the alarms that were made.
  returned: success
  type: list
  elements: str
updated:
  description: Names of those that were other than wished.
  returned: success
  type: list
  elements: str
removed:
  description: Names of those that nobody wishes any more.
  returned: success
  type: list
  elements: str
"""

from typing import Any  # noqa: E402 - Ansible wants the documentation first

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry  # noqa: E402
from botocore.exceptions import BotoCoreError, ClientError  # noqa: E402

REMOVE_AT_ONCE = 100  # CloudWatch's limit


def same(want: Any, have: Any) -> bool:
    """Return whether everything in ``want`` is so in ``have``.

    What AWS adds by itself does not matter, nor does the order of a list; 80, 80.0 and "80" are one number.
    """
    if isinstance(want, dict):
        return isinstance(have, dict) and all(same(value, have.get(key)) for key, value in want.items())
    if isinstance(want, list):
        left = list(have or [])
        for each in want:
            found = next((number for number, other in enumerate(left) if same(each, other)), None)
            if found is None:
                return False
            del left[found]
        return not left
    if isinstance(want, bool) or not isinstance(want, int | float):
        return bool(want == have)
    try:
        return float(want) == float(have)
    except (TypeError, ValueError):
        return False


def plan(
    want: dict[str, dict[str, Any]],
    have: dict[str, dict[str, Any]],
    tags: dict[str, str],
    tags_of: dict[str, dict[str, str]],
) -> tuple[list[str], list[str], list[str], list[str]]:
    """Return the names to create, to update, to tag and to remove."""
    created = sorted(set(want) - set(have))
    updated = sorted(name for name in set(want) & set(have) if not same(want[name], have[name]))
    tagged = sorted(name for name in set(want) & set(have) if not tags.items() <= tags_of.get(name, {}).items())
    removed = sorted(name for name in set(have) - set(want) if tags and tags.items() <= tags_of.get(name, {}).items())
    return created, updated, tagged, removed


def existing(client: Any, prefix: str) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, str]]]:
    """Return the alarms of ``prefix`` and their tags, by name."""
    pages = client.get_paginator("describe_alarms").paginate(AlarmNamePrefix=prefix, AlarmTypes=["MetricAlarm"])
    have = {alarm["AlarmName"]: alarm for page in pages for alarm in page["MetricAlarms"]}
    tags = {}
    for name, alarm in have.items():
        answer = client.list_tags_for_resource(aws_retry=True, ResourceARN=alarm["AlarmArn"])
        tags[name] = {tag["Key"]: tag["Value"] for tag in answer["Tags"]}
    return have, tags


def carry_out(
    client: Any,
    params: dict[str, Any],
    have: dict[str, dict[str, Any]],
    steps: tuple[list[str], list[str], list[str], list[str]],
) -> None:
    """Create, update, tag and remove."""
    created, updated, tagged, removed = steps
    want = {alarm["AlarmName"]: alarm for alarm in params["alarms"]}
    tags = [{"Key": key, "Value": str(value)} for key, value in sorted(params["tags"].items())]
    for name in created:
        client.put_metric_alarm(aws_retry=True, **want[name], Tags=tags)
    for name in updated:
        client.put_metric_alarm(aws_retry=True, **want[name])
    for name in tagged:
        client.tag_resource(aws_retry=True, ResourceARN=have[name]["AlarmArn"], Tags=tags)
    for start in range(0, len(removed), REMOVE_AT_ONCE):
        client.delete_alarms(aws_retry=True, AlarmNames=removed[start : start + REMOVE_AT_ONCE])


def shown(alarms: dict[str, dict[str, Any]], names: list[str], keys: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return what a diff shows of some alarms: the keys that we set."""
    known = {name: set(keys.get(name, ())) for name in names}
    return {
        name: {key: value for key, value in alarms[name].items() if not known[name] or key in known[name]}
        for name in names
        if name in alarms
    }


def main() -> None:
    """Make the alarms what they should be, and report what changed."""
    module = AnsibleAWSModule(
        argument_spec={
            "prefix": {"type": "str", "required": True},
            "alarms": {"type": "list", "elements": "dict", "required": True},
            "tags": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    params = module.params
    prefix, tags = params["prefix"], {key: str(value) for key, value in params["tags"].items()}
    want = {str(alarm.get("AlarmName")): alarm for alarm in params["alarms"]}
    if not prefix.endswith("-"):
        module.fail_json(msg=f"prefix: expected a name that ends with a dash such as pergola-staging-, got {prefix!r}")
    if strangers := sorted(name for name in want if not name.startswith(prefix)):
        module.fail_json(msg=f"alarms: {strangers[0]} does not begin with {prefix}")
    if len(want) != len(params["alarms"]):
        module.fail_json(msg="alarms: two of them have the same AlarmName")
    client = module.client("cloudwatch", retry_decorator=AWSRetry.jittered_backoff())
    try:
        have, tags_of = existing(client, prefix)
        steps = plan(want, have, tags, tags_of)
        if not module.check_mode:
            carry_out(client, params, have, steps)
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg="The alarms could not be made what they should be")
    created, updated, tagged, removed = steps
    touched = [*created, *updated, *removed]
    module.exit_json(
        changed=any(steps),
        created=created,
        updated=sorted({*updated, *tagged}),
        removed=removed,
        diff={"before": shown(have, touched, want), "after": shown(want, touched, want)},
    )


if __name__ == "__main__":
    main()
