#!/usr/bin/python
"""Ansible module for a scaling group with all that belongs to it: hooks, target tracking, times, tags."""

DOCUMENTATION = r"""
---
module: scaling_group
short_description: An EC2 scaling group with its hooks, policies and schedule
description:
  - Makes or changes a scaling group with what belongs to it in one task.
  - Needed beside C(amazon.aws.autoscaling_group) because that one makes a group without its lifecycle hooks (its first hosts would serve
    before they are ready), says "changed" in every check mode and whenever a host changes its state, and because the modules for
    hooks and policies have no check mode or need the group to be there.
  - How many hosts there are is the group's own state. C(desired) counts when the group is made, and when its size is out of bounds.
options:
  name:
    description: Its name.
    type: str
    required: true
  state:
    description: Whether it shall be there. An absent one takes its hosts with it.
    type: str
    choices: [present, absent]
    default: present
  launch_template:
    description: Name of the launch template. Needed unless C(state=absent).
    type: str
  version:
    description: Number of the template's version. Numbered, so that a new version alone changes no host.
    type: str
  min:
    description: Fewest hosts.
    type: int
    default: 0
  max:
    description: Most hosts.
    type: int
    default: 0
  desired:
    description: Hosts to begin with.
    type: int
    default: 0
  subnets:
    description: Ids of its subnets.
    type: list
    elements: str
    default: []
  target_groups:
    description: ARNs of its target groups. With any, their health is the hosts' health.
    type: list
    elements: str
    default: []
  grace:
    description: Seconds in service in which failed checks do not replace a host.
    type: int
    default: 300
  spot:
    description: Share of spot instances above the fewest, in per cent, of this instance type.
    type: dict
    options:
      percent: {description: The share., type: int, required: true}
      instance_type: {description: The instance type., type: str, required: true}
  hooks:
    description: Lifecycle hooks.
    type: list
    elements: dict
    default: []
    options:
      name: {description: Its name., type: str, required: true}
      transition: {description: When., type: str, required: true, choices: [launching, terminating]}
      result: {description: What happens when nobody answers., type: str, required: true, choices: [CONTINUE, ABANDON]}
      seconds: {description: How long it waits., type: int, required: true}
  targets:
    description: Metrics that scaling keeps to (target tracking).
    type: list
    elements: dict
    default: []
    options:
      name: {description: Its name., type: str, required: true}
      metric: {description: A predefined metric., type: str, required: true}
      label: {description: Its resource label., type: str}
      value: {description: The target., type: float, required: true}
      warmup: {description: Seconds until a new host counts., type: int, default: 60}
  schedule:
    description: Times at which the size changes.
    type: list
    elements: dict
    default: []
    options:
      name: {description: Its name., type: str, required: true}
      at: {description: "When, as cron has it, in UTC.", type: str, required: true}
      min: {description: Fewest hosts from then on., type: int}
      max: {description: Most hosts from then on., type: int}
      desired: {description: Hosts then., type: int}
  tags:
    description: Tags of the group and its hosts.
    type: dict
    default: {}
  wait_timeout:
    description: Seconds to wait for the end of a group that is removed.
    type: int
    default: 600
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
- name: The fleet has its hosts
  scaling_group:
    name: pergola-production-main-blue
    launch_template: pergola-production-main-blue
    version: "3"
    min: 2
    max: 10
    desired: 2
    subnets: [subnet-0a, subnet-0b]
"""

RETURN = r"""
changes:
  description: What was (or, in check mode, would be) changed.
  returned: success
  type: list
  elements: str
version_before:
  description: The template's version that the group named before; empty for a new group.
  returned: success
  type: str
size:
  description: The wished number of hosts.
  returned: success
  type: int
"""

import time  # noqa: E402 - Ansible wants the documentation first
from typing import Any  # noqa: E402

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry  # noqa: E402

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says what is missing
    BotoCoreError = ClientError = Exception

METRICS = [
    "GroupDesiredCapacity",
    "GroupInServiceInstances",
    "GroupPendingInstances",
    "GroupTerminatingInstances",
    "GroupTotalInstances",
]
TRANSITIONS = {"launching": "autoscaling:EC2_INSTANCE_LAUNCHING", "terminating": "autoscaling:EC2_INSTANCE_TERMINATING"}


def described(client: Any, name: str) -> dict[str, Any] | None:
    """Return the group, or None."""
    found = client.describe_auto_scaling_groups(AutoScalingGroupNames=[name], aws_retry=True)["AutoScalingGroups"]
    return dict(found[0]) if found else None


def template_of(group: dict[str, Any]) -> dict[str, Any]:
    """Return the launch template that a group names, alone or in a policy of mixed instances."""
    mixed = group.get("MixedInstancesPolicy", {}).get("LaunchTemplate", {})
    return dict(group.get("LaunchTemplate") or mixed.get("LaunchTemplateSpecification") or {})


def wanted(given: dict[str, Any], group: dict[str, Any] | None) -> dict[str, Any]:
    """Return the group's own properties as the API takes them."""
    size = given["desired"] if group is None else int(group["DesiredCapacity"])
    if size < given["min"] or (group is not None and int(group["MaxSize"]) == 0):
        size = max(given["desired"], given["min"])
    return {
        "MinSize": given["min"],
        "MaxSize": given["max"],
        "DesiredCapacity": min(size, given["max"]),
        "VPCZoneIdentifier": ",".join(given["subnets"]),
        "HealthCheckType": "ELB" if given["target_groups"] else "EC2",
        "HealthCheckGracePeriod": given["grace"],
        **launched(given),
    }


def launched(given: dict[str, Any]) -> dict[str, Any]:
    """Return from what hosts are launched."""
    template = {"LaunchTemplateName": given["launch_template"], "Version": given["version"]}
    if not given["spot"]:
        return {"LaunchTemplate": template}
    spread = {"OnDemandBaseCapacity": given["min"], "OnDemandPercentageAboveBaseCapacity": 100 - given["spot"]["percent"],
              "SpotAllocationStrategy": "price-capacity-optimized"}  # fmt: skip
    kinds = {"LaunchTemplateSpecification": template, "Overrides": [{"InstanceType": given["spot"]["instance_type"]}]}
    return {"MixedInstancesPolicy": {"LaunchTemplate": kinds, "InstancesDistribution": spread}}


def different(have: dict[str, Any], want: dict[str, Any]) -> list[str]:
    """Return which of the group's own properties are not as they should be."""
    found = []
    for key, value in want.items():
        if key in {"LaunchTemplate", "MixedInstancesPolicy"}:
            now, then = template_of(have), template_of(want)
            spread = have.get("MixedInstancesPolicy", {}).get("InstancesDistribution") or {}
            asked = (value.get("InstancesDistribution") or {}) if key == "MixedInstancesPolicy" else {}
            same = now.get("Version") == then["Version"] and now.get("LaunchTemplateName") == then["LaunchTemplateName"]
            if not same or (key not in have) or any(spread.get(k) != v for k, v in asked.items()):
                found.append(key)
        elif key == "VPCZoneIdentifier":
            if set(str(have.get(key, "")).split(",")) != set(value.split(",")):
                found.append(key)
        elif have.get(key) != value:
            found.append(key)
    return found


def hooks(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the hooks by name, as the API takes them."""
    return {
        hook["name"]: {"LifecycleHookName": hook["name"], "LifecycleTransition": TRANSITIONS[hook["transition"]],
                       "HeartbeatTimeout": hook["seconds"], "DefaultResult": hook["result"]}
        for hook in given["hooks"]
    }  # fmt: skip


def policies(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the policies by name, as the API takes them."""
    rows = {}
    for one in given["targets"]:
        metric = {"PredefinedMetricType": one["metric"], **({"ResourceLabel": one["label"]} if one["label"] else {})}
        rows[one["name"]] = {
            "PolicyType": "TargetTrackingScaling", "EstimatedInstanceWarmup": one["warmup"],
            "TargetTrackingConfiguration": {"PredefinedMetricSpecification": metric, "TargetValue": one["value"]},
        }  # fmt: skip
    return rows


def times(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the scheduled actions by name, as the API takes them."""
    keys = {"min": "MinSize", "max": "MaxSize", "desired": "DesiredCapacity"}
    return {
        one["name"]: {"Recurrence": one["at"], **{keys[key]: one[key] for key in keys if one[key] is not None}}
        for one in given["schedule"]
    }


def within(want: Any, have: Any) -> bool:
    """Return whether everything wanted is there; the API adds what nobody asked for."""
    if isinstance(want, dict):
        return isinstance(have, dict) and all(within(value, have.get(key)) for key, value in want.items())
    return bool(want == have)


class Group:
    """One group, and what is done to it."""

    def __init__(self, module: AnsibleAWSModule) -> None:
        self.module, self.given, self.name = module, module.params, module.params["name"]
        self.client = module.client("autoscaling", retry_decorator=AWSRetry.jittered_backoff(retries=8))
        self.changes: list[str] = []

    def do(self, what: str, call: str, **arguments: Any) -> None:
        """Note a change, and make it unless this is only a check."""
        self.changes.append(what)
        if not self.module.check_mode:
            getattr(self.client, call)(**arguments, aws_retry=True)

    def present(self) -> dict[str, Any]:
        """Bring the group to what is asked for."""
        group = described(self.client, self.name)
        want = wanted(self.given, group)
        tags = [
            {
                "ResourceId": self.name,
                "ResourceType": "auto-scaling-group",
                "Key": key,
                "Value": str(value),
                "PropagateAtLaunch": True,
            }
            for key, value in sorted(self.given["tags"].items())
        ]
        if group is None:
            self.do(
                "the group", "create_auto_scaling_group", AutoScalingGroupName=self.name, **want, Tags=tags,
                TargetGroupARNs=self.given["target_groups"], LifecycleHookSpecificationList=list(hooks(self.given).values()),
            )  # fmt: skip
            have: dict[str, Any] = {}
        else:
            self.own(group, want, tags)
            have = self.parts()
        if group is None:  # made with the group
            have["hooks"] = hooks(self.given)
        self.lists(have)
        if {one["Metric"] for one in (group or {}).get("EnabledMetrics", [])} < set(METRICS):
            self.do(
                "metrics",
                "enable_metrics_collection",
                AutoScalingGroupName=self.name,
                Granularity="1Minute",
                Metrics=METRICS,
            )
        before = template_of(group or {}).get("Version", "")
        return {"version_before": before, "size": want["DesiredCapacity"]}

    def own(self, group: dict[str, Any], want: dict[str, Any], tags: list[dict[str, Any]]) -> None:
        """Change the group's own properties, target groups and tags."""
        if found := different(group, want):
            self.do(", ".join(found), "update_auto_scaling_group", AutoScalingGroupName=self.name, **want)
        there, asked = set(group["TargetGroupARNs"]), set(self.given["target_groups"])
        for extra, call in (
            (asked - there, "attach_load_balancer_target_groups"),
            (there - asked, "detach_load_balancer_target_groups"),
        ):
            if extra:
                self.do("target groups", call, AutoScalingGroupName=self.name, TargetGroupARNs=sorted(extra))
        known = {tag["Key"]: tag["Value"] for tag in group["Tags"]}
        if any(known.get(tag["Key"]) != tag["Value"] for tag in tags):
            self.do("tags", "create_or_update_tags", Tags=tags)

    def parts(self) -> dict[str, Any]:
        """Return the hooks, policies and times that the group has, by name."""
        name = {"AutoScalingGroupName": self.name, "aws_retry": True}
        held = self.client.describe_lifecycle_hooks(**name)["LifecycleHooks"]
        kept = self.client.describe_policies(**name)["ScalingPolicies"]
        due = self.client.describe_scheduled_actions(**name)["ScheduledUpdateGroupActions"]
        return {
            "hooks": {one["LifecycleHookName"]: one for one in held},
            "policies": {one["PolicyName"]: one for one in kept if one["PolicyType"] == "TargetTrackingScaling"},
            "times": {one["ScheduledActionName"]: one for one in due},
        }

    def lists(self, have: dict[str, Any]) -> None:
        """Make, change and remove hooks, policies and times."""
        group = {"AutoScalingGroupName": self.name}
        kinds = (
            ("hooks", hooks(self.given), "put_lifecycle_hook", "delete_lifecycle_hook", "LifecycleHookName"),
            ("policies", policies(self.given), "put_scaling_policy", "delete_policy", "PolicyName"),
            (
                "times",
                times(self.given),
                "put_scheduled_update_group_action",
                "delete_scheduled_action",
                "ScheduledActionName",
            ),
        )
        for kind, want, put, remove, key in kinds:
            there = have.get(kind, {})
            for name, one in want.items():
                if not within(one, there.get(name)):
                    self.do(f"{kind}: {name}", put, **group, **{key: name, **one})
            for name in sorted(set(there) - set(want)):
                self.do(f"{kind}: {name} removed", remove, **group, **{key: name})

    def absent(self) -> dict[str, Any]:
        """Remove the group with its hosts, and wait for their end."""
        group = described(self.client, self.name)
        if group is not None:
            self.do("the group removed", "delete_auto_scaling_group", AutoScalingGroupName=self.name, ForceDelete=True)
            deadline = time.monotonic() + self.given["wait_timeout"]
            while not self.module.check_mode and described(self.client, self.name):
                if time.monotonic() > deadline:
                    self.module.fail_json(
                        msg=f"{self.name} still has hosts after {self.given['wait_timeout']} s; run this again"
                    )
                time.sleep(3)
        return {"version_before": template_of(group or {}).get("Version", ""), "size": 0}


def main() -> None:
    """Run the module."""
    text = {"type": "str", "required": True}
    whole = {"type": "int"}
    module = AnsibleAWSModule(
        argument_spec={
            "name": text,
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
            "launch_template": {"type": "str"},
            "version": {"type": "str"},
            "min": {"type": "int", "default": 0},
            "max": {"type": "int", "default": 0},
            "desired": {"type": "int", "default": 0},
            "subnets": {"type": "list", "elements": "str", "default": []},
            "target_groups": {"type": "list", "elements": "str", "default": []},
            "grace": {"type": "int", "default": 300},
            "spot": {"type": "dict", "options": {"percent": {"type": "int", "required": True}, "instance_type": text}},
            "hooks": {"type": "list", "elements": "dict", "default": [], "options": {
                "name": text, "transition": {**text, "choices": list(TRANSITIONS)},
                "result": {**text, "choices": ["CONTINUE", "ABANDON"]}, "seconds": {"type": "int", "required": True}}},
            "targets": {"type": "list", "elements": "dict", "default": [], "options": {
                "name": text, "metric": text, "label": {"type": "str"}, "value": {"type": "float", "required": True},
                "warmup": {"type": "int", "default": 60}}},
            "schedule": {"type": "list", "elements": "dict", "default": [], "options": {
                "name": text, "at": text, "min": whole, "max": whole, "desired": whole}},
            "tags": {"type": "dict", "default": {}},
            "wait_timeout": {"type": "int", "default": 600},
        },
        required_if=[("state", "present", ["launch_template", "version", "subnets"])],
        supports_check_mode=True,
    )  # fmt: skip
    group = Group(module)
    try:
        result = group.present() if module.params["state"] == "present" else group.absent()
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg=f"the scaling group {group.name} cannot be brought to its state")
    module.exit_json(changed=bool(group.changes), changes=group.changes, **result)


if __name__ == "__main__":
    main()
