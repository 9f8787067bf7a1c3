"""The AWS calls of a deploy: sizes of groups, weights of listeners, health of targets, alarms."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from botocore.config import Config

from app.core.cloud.site import COLOURS
from deploys.spec import DeployError, Fleet, Release

# The settings in a host's user data, roles/aws_fleet/files/user_data.py: the only JSON between r""" and """.
_SETTINGS = re.compile(r'(?<=r""")\{.*?\}(?=""")', re.DOTALL)
RETIRE = "retire"
# Seconds, as roles/aws_fleet/files/instance.py has them: of a metric's values, and for which one stands (and a minute to arrive).
RESOLUTION, STANDS = 5, 300


class Cloud:
    """One environment's moving parts, found by name."""

    def __init__(self, region: str, balancer: str) -> None:
        # the one place for retries: AWS throttles, and a deploy must not end by that
        self._config = Config(
            region_name=region, retries={"mode": "adaptive", "max_attempts": 10}, connect_timeout=5, read_timeout=30
        )
        self._balancer = balancer
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """Return the client of a service; making one costs more than a call."""
        if service not in self._clients:
            self._clients[service] = boto3.client(service, config=self._config)
        return self._clients[service]

    # ------------------------------------------------------------ weights

    @functools.cached_property
    def _arns(self) -> dict[str, str]:
        """ARN of each target group by name."""
        pages = self.client("elbv2").get_paginator("describe_target_groups").paginate()
        return {group["TargetGroupName"]: group["TargetGroupArn"] for page in pages for group in page["TargetGroups"]}

    def _arn(self, target_group: str) -> str:
        try:
            return self._arns[target_group]
        except KeyError:
            raise DeployError(
                f"there is no target group {target_group}; make the environment first: ansible-playbook site.yml"
            ) from None

    @functools.cached_property
    def _listener(self) -> str:
        found = self.client("elbv2").describe_load_balancers(Names=[self._balancer])["LoadBalancers"][0][
            "LoadBalancerArn"
        ]
        listeners = self.client("elbv2").describe_listeners(LoadBalancerArn=found)["Listeners"]
        return str(next(row["ListenerArn"] for row in listeners if row["Port"] == 443))

    def _rules(self) -> list[dict[str, Any]]:
        """All rules of the HTTPS listener, the default one too."""
        pages = self.client("elbv2").get_paginator("describe_rules").paginate(ListenerArn=self._listener)
        return [rule for page in pages for rule in page["Rules"]]

    def weights(self, fleet: Fleet) -> dict[str, int]:
        """Return the weight of each colour, from the first rule that forwards to the fleet."""
        names = {self._arn(fleet.targets[colour]): colour for colour in COLOURS}
        for rule in self._rules():
            for share in _shares(rule):
                if share["TargetGroupArn"] in names:
                    found = {
                        names[one["TargetGroupArn"]]: int(one.get("Weight", 1))
                        for one in _shares(rule)
                        if one["TargetGroupArn"] in names
                    }
                    return {colour: found.get(colour, 0) for colour in COLOURS}
        raise DeployError(f"the load balancer sends nothing to the fleet {fleet.name}; run ansible-playbook site.yml")

    def set_weights(self, wishes: Iterable[tuple[Fleet, Mapping[str, int]]]) -> int:
        """Bring every rule to the wished weights of each fleet's colours; return how many rules that changed."""
        wanted = {
            self._arn(fleet.targets[colour]): weight for fleet, weights in wishes for colour, weight in weights.items()
        }
        changed = 0
        for rule in self._rules():
            shares = _shares(rule)
            if not any(wanted.get(one["TargetGroupArn"], one.get("Weight")) != one.get("Weight") for one in shares):
                continue
            action = next(one for one in rule["Actions"] if one["Type"] == "forward")
            config = {
                **action["ForwardConfig"],
                "TargetGroups": [
                    {**one, "Weight": wanted.get(one["TargetGroupArn"], one.get("Weight", 1))} for one in shares
                ],
            }
            actions = [{"Type": "forward", "ForwardConfig": config}]
            if rule.get("IsDefault"):
                self.client("elbv2").modify_listener(ListenerArn=self._listener, DefaultActions=actions)
            else:
                self.client("elbv2").modify_rule(RuleArn=rule["RuleArn"], Actions=actions)
            changed += 1
        return changed

    # ------------------------------------------------------------ hosts

    def group(self, name: str) -> dict[str, Any]:
        """Return a scaling group as AWS describes it."""
        found = self.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[name])[
            "AutoScalingGroups"
        ]
        if not found:
            raise DeployError(
                f"there is no scaling group {name}; make the environment first: ansible-playbook site.yml"
            )
        return dict(found[0])

    def resize(self, name: str, low: int, high: int, desired: int) -> None:
        """Set a group's bounds and size."""
        self.client("autoscaling").update_auto_scaling_group(
            AutoScalingGroupName=name, MinSize=low, MaxSize=high, DesiredCapacity=desired
        )

    def prepare(self, group: str, source: str) -> None:
        """Let a group launch from the newest version of its own template, with instance types and spot share as another group has them."""
        version = str(self.template(group, "$Latest")["VersionNumber"])
        own = {"LaunchTemplateName": group, "Version": version}
        policy = self.group(source).get("MixedInstancesPolicy")
        if policy:
            policy = {**policy, "LaunchTemplate": {**policy["LaunchTemplate"], "LaunchTemplateSpecification": own}}
            self.client("autoscaling").update_auto_scaling_group(
                AutoScalingGroupName=group, MixedInstancesPolicy=policy
            )
        else:
            self.client("autoscaling").update_auto_scaling_group(AutoScalingGroupName=group, LaunchTemplate=own)

    def template(self, name: str, version: str) -> dict[str, Any]:
        """Return one version of a launch template."""
        found = self.client("ec2").describe_launch_template_versions(LaunchTemplateName=name, Versions=[version])
        return dict(found["LaunchTemplateVersions"][0])

    def give_release(self, group: str, source: str, release: Release) -> bool:
        """See to it that a group's newest template is like another group's newest, with a release; return whether it was not."""
        data = dict(self.template(source, "$Latest")["LaunchTemplateData"])
        script = _script(data)
        if not _settings(script):
            raise DeployError(f"the launch template {source} names no release; run ansible-playbook site.yml")
        settings = {**_settings(script), "group": group, "release": release.key, "sha256": release.sha256}
        data["UserData"] = base64.b64encode(
            _SETTINGS.sub(lambda _: json.dumps(settings), script, count=1).encode()
        ).decode()
        colour = {source: group, source.rpartition("-")[2]: group.rpartition("-")[2]}
        data["TagSpecifications"] = [
            {**row, "Tags": [{**tag, "Value": colour.get(tag["Value"], tag["Value"])} for tag in row["Tags"]]}
            for row in data.get("TagSpecifications", ())
        ]
        there = self.template(group, "$Latest")["LaunchTemplateData"]
        if {**there, "UserData": ""} == {**data, "UserData": ""} and _settings(
            base64.b64decode(there["UserData"]).decode()
        ) == settings:
            return False
        self.client("ec2").create_launch_template_version(LaunchTemplateName=group, LaunchTemplateData=data)
        return True

    def _launched_with(self, group: str) -> dict[str, Any]:
        """Return the template data that a group launches its hosts with."""
        found = self.group(group)
        template = (
            found.get("LaunchTemplate")
            or found["MixedInstancesPolicy"]["LaunchTemplate"]["LaunchTemplateSpecification"]
        )
        return dict(self.template(group, str(template.get("Version", "$Default")))["LaunchTemplateData"])

    def release_of(self, group: str) -> Release | None:
        """Return the release that a group's hosts are launched with; None where its template names none."""
        settings = _settings(_script(self._launched_with(group)))
        return Release(settings["release"], settings["sha256"]) if settings.get("sha256") else None

    def image_of(self, group: str) -> str:
        """Return the image that a group's hosts are launched from."""
        return str(self._launched_with(group).get("ImageId", ""))

    def newest_image_of(self, group: str) -> str:
        """Return the image that a group's next hosts will be launched from."""
        return str(self.template(group, "$Latest")["LaunchTemplateData"].get("ImageId", ""))

    def hosts(self, fleet: Fleet, colour: str) -> dict[str, str]:
        """Return the state of each host of a colour: ``healthy`` when it is in service and the balancer says so, else what it is."""
        health = {
            row["Target"]["Id"]: row["TargetHealth"]["State"]
            for row in self.client("elbv2").describe_target_health(TargetGroupArn=self._arn(fleet.targets[colour]))[
                "TargetHealthDescriptions"
            ]
        }
        return {
            row["InstanceId"]: health.get(row["InstanceId"], "unregistered")
            if row["LifecycleState"] == "InService"
            else row["LifecycleState"]
            for row in self.group(fleet.groups[colour])["Instances"]
        }

    def failed_launches(self, group: str, since: datetime) -> list[str]:
        """Return why launches of a group failed since a moment."""
        rows = self.client("autoscaling").describe_scaling_activities(AutoScalingGroupName=group, MaxRecords=50)[
            "Activities"
        ]
        return [
            str(row.get("StatusMessage") or row.get("Cause") or row["Description"])
            for row in rows
            if row["StatusCode"] in {"Failed", "Cancelled"}
            and row["StartTime"].replace(tzinfo=row["StartTime"].tzinfo or UTC) >= since
        ]

    def retire_at(self, group: str, moment: datetime, name: str) -> None:
        """Have the group itself give its hosts back at a moment, whatever becomes of this controller."""
        self.client("autoscaling").put_scheduled_update_group_action(
            AutoScalingGroupName=group,
            ScheduledActionName=f"{RETIRE}-{name}",
            StartTime=moment,
            MinSize=0,
            MaxSize=0,
            DesiredCapacity=0,
        )

    def retirement(self, group: str) -> datetime | None:
        """Return when a group is going to give its hosts back, if it is."""
        rows = self.client("autoscaling").describe_scheduled_actions(AutoScalingGroupName=group)[
            "ScheduledUpdateGroupActions"
        ]
        moments = [row["StartTime"] for row in rows if row["ScheduledActionName"].startswith(f"{RETIRE}-")]
        return max(moments, default=None)

    def stay(self, group: str) -> None:
        """Take back every retirement of a group."""
        rows = self.client("autoscaling").describe_scheduled_actions(AutoScalingGroupName=group)[
            "ScheduledUpdateGroupActions"
        ]
        for row in rows:
            if row["ScheduledActionName"].startswith(f"{RETIRE}-"):
                self.client("autoscaling").delete_scheduled_action(
                    AutoScalingGroupName=group, ScheduledActionName=row["ScheduledActionName"]
                )

    # ------------------------------------------------------------ metrics and alarms

    def latest(
        self, namespace: str, metric: str, instances: Iterable[str], dimension: str = "InstanceId"
    ) -> dict[str, float]:
        """Return the last value that each instance (or other value of a dimension) told of a metric within the time for which it stands."""
        wanted, found = sorted(instances), dict[str, float]()
        end = datetime.now(UTC) + timedelta(seconds=RESOLUTION)
        for start in range(0, len(wanted), 100):
            queries = [
                {
                    "Id": f"m{number}",
                    "MetricStat": {
                        "Metric": {
                            "Namespace": namespace,
                            "MetricName": metric,
                            "Dimensions": [{"Name": dimension, "Value": instance}],
                        },
                        "Period": RESOLUTION,
                        "Stat": "Maximum",
                    },
                }
                for number, instance in enumerate(wanted[start : start + 100], start)
            ]
            pages = self.client("cloudwatch").get_paginator("get_metric_data")
            given = {"MetricDataQueries": queries, "StartTime": end - timedelta(seconds=STANDS), "EndTime": end}
            rows: dict[str, list[tuple[datetime, float]]] = {}
            for page in pages.paginate(**given):
                for row in page["MetricDataResults"]:
                    rows.setdefault(row["Id"], []).extend(zip(row["Timestamps"], row["Values"], strict=True))
            found |= {wanted[int(key[1:])]: max(values)[1] for key, values in rows.items() if values}
        return found

    def sessions(self, namespace: str, group: str) -> int | None:
        """Return the live sessions of a group's hosts; None unless each of them has told its number."""
        instances = [row["InstanceId"] for row in self.group(group)["Instances"]]
        told = self.latest(namespace, "LiveSessions", instances)
        return int(sum(told.values())) if len(told) == len(instances) else None

    def firing(self, names: Iterable[str]) -> list[str]:
        """Return the names of the alarms that are in the state ALARM."""
        wanted, found = sorted(names), []
        for start in range(0, len(wanted), 100):
            pages = (
                self.client("cloudwatch")
                .get_paginator("describe_alarms")
                .paginate(AlarmNames=wanted[start : start + 100], StateValue="ALARM")
            )
            found += [
                row["AlarmName"] for page in pages for row in page["MetricAlarms"] if row["StateValue"] == "ALARM"
            ]
        return found


def _script(data: Mapping[str, Any]) -> str:
    """Return the user data of a launch template."""
    return base64.b64decode(data.get("UserData", "")).decode(errors="replace")


def _settings(script: str) -> dict[str, Any]:
    """Return the settings in a host's user data."""
    found = _SETTINGS.search(script)
    return dict(json.loads(found.group())) if found else {}


def _shares(rule: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the target groups that a rule forwards to."""
    for action in rule["Actions"]:
        if action["Type"] == "forward":
            return list(action.get("ForwardConfig", {}).get("TargetGroups", []))
    return []


def in_seconds(seconds: float) -> datetime:
    """Return the moment some seconds from now."""
    return datetime.now(UTC) + timedelta(seconds=seconds)
