#!/usr/bin/python
"""Ansible module that says how an environment on AWS is doing."""

DOCUMENTATION = r"""
---
module: cloud_status
short_description: How an environment is doing, as a table
description:
  - Reads hosts with their health, release and colour, the share of visitors of each colour, the alarms, and what the budget counted so far.
  - Reads only. What is not there yet is left out.
options:
  prefix:
    description: What all names of the environment begin with.
    type: str
    required: true
  balancer:
    description: Name of the load balancer; none when empty.
    type: str
    default: ""
  fleets:
    description: The fleets; each with C(fleet) and its C(colours), and each of those with C(colour), C(name) and C(target_group).
    type: list
    elements: dict
    required: true
  budget:
    description: Name of the budget.
    type: str
    required: true
  next_command:
    description: What an empty account is told to do.
    type: str
    required: true
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
- name: The environment is read
  cloud_status:
    prefix: pergola-staging
    balancer: pergola-staging
    budget: pergola-staging
    next_command: make cloud
    fleets:
      - fleet: main
        colours: [{ colour: blue, name: pergola-staging-main-blue, target_group: pergola-staging-main-blue }]
  register: read
"""

RETURN = r"""
hosts:
  description: One mapping a host with fleet, colour, id, type, zone, address, state, health, release and since.
  returned: success
  type: list
  elements: dict
colours:
  description: One mapping a colour that has hosts or visitors, with fleet, colour, hosts, healthy, wished and percent.
  returned: success
  type: list
  elements: dict
alarms:
  description: One mapping an alarm that is not OK, with name, state, since and text.
  returned: success
  type: list
  elements: dict
text:
  description: All of it as lines of a table.
  returned: success
  type: list
  elements: str
"""

import base64  # noqa: E402 - Ansible wants the documentation first
import re  # noqa: E402
from collections.abc import Iterable  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.amazon.aws.plugins.module_utils.botocore import is_boto3_error_code  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry  # noqa: E402
from botocore.exceptions import BotoCoreError, ClientError  # noqa: E402

RELEASE = re.compile(r'"release":\s*"([^"]+)"')
BUDGETS_REGION = "us-east-1"


class Reader:
    """Asks AWS, each thing once."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.templates: dict[tuple[str, str], str] = {}

    def client(self, name: str, **more: Any) -> Any:
        """Return a client that tries again."""
        return self.module.client(name, retry_decorator=AWSRetry.jittered_backoff(), **more)

    def groups(self, names: list[str]) -> dict[str, dict[str, Any]]:
        """Return the scaling groups that there are."""
        found = self.client("autoscaling").describe_auto_scaling_groups(aws_retry=True, AutoScalingGroupNames=names)
        return {group["AutoScalingGroupName"]: group for group in found["AutoScalingGroups"]}

    def instances(self, prefix: str) -> list[dict[str, Any]]:
        """Return the environment's machines that have not ended."""
        states = {
            "Name": "instance-state-name",
            "Values": ["pending", "running", "stopping", "stopped", "shutting-down"],
        }
        names = {"Name": "tag:Name", "Values": [f"{prefix}-*"]}
        found = self.client("ec2").describe_instances(aws_retry=True, Filters=[states, names])
        return [machine for row in found["Reservations"] for machine in row["Instances"]]

    def health(self, target_group: str) -> tuple[str, dict[str, str]]:
        """Return a target group's ARN, and the health of each target."""
        client = self.client("elbv2")
        try:
            arn = client.describe_target_groups(aws_retry=True, Names=[target_group])["TargetGroups"][0][
                "TargetGroupArn"
            ]
        except is_boto3_error_code("TargetGroupNotFound"):
            return "", {}
        found = client.describe_target_health(aws_retry=True, TargetGroupArn=arn)["TargetHealthDescriptions"]
        return arn, {
            row["Target"]["Id"]: " ".join(
                filter(None, (row["TargetHealth"]["State"], row["TargetHealth"].get("Reason", "").partition(".")[2]))
            )
            for row in found
        }

    def weights(self, balancer: str) -> dict[str, int]:
        """Return the weight of each target group in the listeners' default actions."""
        client = self.client("elbv2")
        try:
            arn = client.describe_load_balancers(aws_retry=True, Names=[balancer])["LoadBalancers"][0][
                "LoadBalancerArn"
            ]
        except is_boto3_error_code("LoadBalancerNotFound"):
            return {}
        listeners = client.describe_listeners(aws_retry=True, LoadBalancerArn=arn)["Listeners"]
        rules = [client.describe_rules(aws_retry=True, ListenerArn=each["ListenerArn"])["Rules"] for each in listeners]
        actions = [
            action for group in rules for rule in group for action in rule["Actions"] if action["Type"] == "forward"
        ]
        weights: dict[str, int] = {}
        for action in actions:
            for group in action.get("ForwardConfig", {}).get("TargetGroups") or [
                {"TargetGroupArn": action.get("TargetGroupArn", ""), "Weight": 1}
            ]:
                weights[group["TargetGroupArn"]] = int(group.get("Weight", 1))
        return weights

    def release(self, template: dict[str, Any] | None) -> str:
        """Return the release that a version of a launch template names."""
        if not template:
            return ""
        key = (template["LaunchTemplateId"], str(template["Version"]))
        if key not in self.templates:
            found = self.client("ec2").describe_launch_template_versions(
                aws_retry=True, LaunchTemplateId=key[0], Versions=[key[1]]
            )["LaunchTemplateVersions"]
            data = base64.b64decode(found[0]["LaunchTemplateData"].get("UserData", "")) if found else b""
            named = RELEASE.search(data.decode(errors="replace"))
            self.templates[key] = named[1].rsplit("/", 1)[-1] if named else f"template {key[1]}"
        return self.templates[key]

    def alarms(self, prefix: str) -> tuple[int, list[dict[str, Any]]]:
        """Return how many alarms there are, and those that are not OK."""
        pages = self.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"{prefix}-")
        found = [alarm for page in pages for alarm in page["MetricAlarms"]]
        rows = [
            {
                "name": alarm["AlarmName"].removeprefix(f"{prefix}-"),
                "state": {"ALARM": "ALARM", "INSUFFICIENT_DATA": "no data yet"}[alarm["StateValue"]],
                "since": minute(alarm.get("StateUpdatedTimestamp")),
                "text": alarm.get("AlarmDescription", ""),
            }
            for alarm in found
            if alarm["StateValue"] != "OK"
        ]
        return len(found), sorted(rows, key=lambda row: (row["state"] != "ALARM", row["name"]))

    def spent(self, budget: str) -> str:
        """Return what the budget counted this month, in words; nothing when there is no budget."""
        account = self.client("sts").get_caller_identity(aws_retry=True)["Account"]
        try:
            found = self.client("budgets", region=BUDGETS_REGION).describe_budget(
                aws_retry=True, AccountId=account, BudgetName=budget
            )["Budget"]
        except is_boto3_error_code("NotFoundException"):
            return ""
        spend = found.get("CalculatedSpend", {})
        actual = float(spend.get("ActualSpend", {}).get("Amount", 0))
        forecast = spend.get("ForecastedSpend", {}).get("Amount")
        words = f"{actual:,.2f} USD this month of a budget of {float(found['BudgetLimit']['Amount']):,.2f}"
        return f"{words}; the month will come to {float(forecast):,.2f}" if forecast is not None else words


def minute(time: Any) -> str:
    """Return a time to the minute, in UTC."""
    return time.strftime("%Y-%m-%d %H:%M") if time else ""


def table(rows: Iterable[dict[str, Any]], keys: tuple[str, ...]) -> list[str]:
    """Return rows under their heads, in columns."""
    cells = [[key.upper() for key in keys], *([str(row[key]) for key in keys] for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(keys))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def read(reader: Reader, params: dict[str, Any]) -> dict[str, Any]:
    """Return what the module answers."""
    colours = [{**colour, "fleet": fleet["fleet"]} for fleet in params["fleets"] for colour in fleet["colours"]]
    groups = reader.groups([colour["name"] for colour in colours])
    machines = {machine["InstanceId"]: machine for machine in reader.instances(params["prefix"])}
    weights = reader.weights(params["balancer"]) if params["balancer"] else {}
    hosts, shares = [], []
    for colour in colours:
        group = groups.get(colour["name"])
        if group is None:
            continue
        arn, health = reader.health(colour["target_group"]) if params["balancer"] else ("", {})
        own = [host(reader, colour, row, machines.pop(row["InstanceId"], {}), health) for row in group["Instances"]]
        hosts += own
        shares.append(
            {
                "fleet": colour["fleet"],
                "colour": colour["colour"],
                "hosts": len(own),
                "healthy": sum(row["health"] in {"healthy", "Healthy"} for row in own),
                "wished": f"{group['MinSize']} <= {group['DesiredCapacity']} <= {group['MaxSize']}",
                "weight": weights.get(arn, 0),
            }
        )
    whole = {row["fleet"]: sum(each["weight"] for each in shares if each["fleet"] == row["fleet"]) for row in shares}
    for row in shares:
        row["visitors"] = f"{100 * row['weight'] // whole[row['fleet']]} %" if whole[row["fleet"]] else "-"
    hosts += [host(reader, {"fleet": "", "colour": ""}, {}, machine, {}) for machine in machines.values()]
    count, alarms = reader.alarms(params["prefix"])
    spent = reader.spent(params["budget"])
    empty = not (groups or hosts or count or weights or spent)
    text = [f"Nothing of {params['prefix']} is there. Make it: {params['next_command']}"] if empty else []
    if not empty:
        text = page(hosts, shares, alarms, count, spent)
    return {"hosts": hosts, "colours": shares, "alarms": alarms, "empty": empty, "text": text}


def host(
    reader: Reader, colour: dict[str, Any], row: dict[str, Any], machine: dict[str, Any], health: dict[str, str]
) -> dict[str, Any]:
    """Return one host: what its group says of it, and what the machine says of itself."""
    name = row.get("InstanceId") or machine["InstanceId"]
    return {
        "fleet": colour["fleet"],
        "colour": colour["colour"],
        "id": name,
        "type": machine.get("InstanceType", row.get("InstanceType", "")),
        "zone": row.get("AvailabilityZone") or machine["Placement"]["AvailabilityZone"],
        "address": machine.get("PublicIpAddress") or machine.get("PrivateIpAddress", ""),
        "state": row.get("LifecycleState") or machine["State"]["Name"],
        "health": health.get(name, row.get("HealthStatus", "")),
        "release": reader.release(row.get("LaunchTemplate")),
        "since": minute(machine.get("LaunchTime")),
    }


def page(
    hosts: list[dict[str, Any]], shares: list[dict[str, Any]], alarms: list[dict[str, Any]], count: int, spent: str
) -> list[str]:
    """Return all of it for a screen."""
    lines = (
        table(shares, ("fleet", "colour", "visitors", "hosts", "healthy", "wished")) if shares else ["no fleets yet"]
    )
    keys = ("fleet", "colour", "id", "type", "zone", "address", "state", "health", "release", "since")
    lines += ["", *(table(hosts, keys) if hosts else ["no hosts"])]
    firing = [row for row in alarms if row["state"] == "ALARM"]
    silent = len(alarms) - len(firing)
    lines += ["", f"{count} alarms: {len(firing)} open, {silent} without data yet, {count - len(alarms)} in order"]
    lines += [f"  {row['name']} since {row['since']}: {row['text']}" for row in firing]
    lines += ["", f"spent: {spent}" if spent else "no budget yet"]
    return lines


def main() -> None:
    """Read and answer."""
    module = AnsibleAWSModule(
        argument_spec={
            "prefix": {"type": "str", "required": True},
            "balancer": {"type": "str", "default": ""},
            "fleets": {"type": "list", "elements": "dict", "required": True},
            "budget": {"type": "str", "required": True},
            "next_command": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        answer = read(Reader(module), module.params)
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg="The environment could not be read")
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
