"""What moto answers differently from AWS where a playbook or a control loop needs it; every patch names its reason."""

from __future__ import annotations

import itertools
import json
import re
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import moto.acm.models as acm
import moto.autoscaling.models as scaling
import moto.budgets.models as budgets
import moto.cloudtrail.models as trails
import moto.cloudwatch.models as cloudwatch
import moto.ec2.models.launch_templates as templates
import moto.ec2.models.tags as ec2_tags
import moto.elbv2.models as elb
import moto.logs.models as log_models
import moto.rds.models as rds
import moto.s3.models as s3
import moto.sns.models as sns
from moto import settings as moto_settings
from moto.autoscaling.exceptions import ValidationError
from moto.autoscaling.responses import AutoScalingResponse
from moto.budgets.responses import BudgetsResponse
from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.ec2.models.amis import AmiBackend
from moto.ec2.models.instances import InstanceBackend
from moto.ec2.responses.general import General
from moto.iam.access_control import IAMPolicy, PermissionResult
from moto.logs.responses import LogsResponse
from moto.rds.exceptions import DBParameterGroupNotFoundError, RDSClientError
from moto.wafv2.responses import WAFV2Response

from emulator.watch import from_logs
from emulator.world import DRAINING, Wait, World

Function = Callable[..., Any]
LAUNCHING, TERMINATING = "autoscaling:EC2_INSTANCE_LAUNCHING", "autoscaling:EC2_INSTANCE_TERMINATING"
RUNNING = {"Pending", "InProgress"}


def around(owner: Any, name: str) -> Callable[[Function], Function]:
    """Replace a method by the decorated function, which gets the original as its first argument."""

    def install(new: Function) -> Function:
        original = getattr(owner, name)
        setattr(owner, name, lambda self, *args, **kwargs: new(original, self, *args, **kwargs))
        return new

    return install


def instead(owner: Any, name: str) -> Callable[[Function], Function]:
    """Replace a method, or add one that moto lacks."""

    def install(new: Function) -> Function:
        setattr(owner, name, new)
        return new

    return install


def apply(world: World) -> None:
    """Patch moto in this process: once, as moto's classes are global."""
    for part in (
        balancing,
        groups,
        instances,
        versions,
        waiting,
        refreshing,
        compute,
        databases,
        database_restores,
        others,
        logging,
        queries,
        money,
    ):
        part(world)


def balancing(world: World) -> None:
    """Load balancers: attributes that AWS always returns, and health from the data plane."""
    attributes = {
        # modules index these without asking whether they are there
        "access_logs.s3.enabled": "false", "idle_timeout.timeout_seconds": "60", "routing.http2.enabled": "true",
        "routing.http.drop_invalid_header_fields.enabled": "false", "routing.http.desync_mitigation_mode": "defensive",
        "routing.http.x_amzn_tls_version_and_cipher_suite.enabled": "false",
        "routing.http.xff_client_port.enabled": "false", "waf.fail_open.enabled": "false",
    }  # fmt: skip

    @around(elb.FakeLoadBalancer, "__init__")
    def initialise(original: Function, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.attrs.update({**attributes, **self.attrs})

    @around(elb.FakeTargetGroup, "__init__")
    def target_group(original: Function, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.attributes.setdefault("stickiness.lb_cookie.duration_seconds", "86400")

    @around(elb.FakeTargetGroup, "health_for")  # moto calls every registered target healthy
    def health_for(original: Function, self: Any, target: dict[str, Any], ec2: Any) -> Any:
        status, key = original(self, target, ec2), (self.arn, target["Id"])
        known = DRAINING if world.draining.get(key, 0) > time.monotonic() else None
        if known is None and status.status == "healthy":
            known = world.health_of(*key)
        if known is not None:
            status.status, status.reason, status.description = known
        return status

    @around(elb.FakeTargetGroup, "deregister")  # AWS drains first
    def deregister(original: Function, self: Any, targets: list[dict[str, Any]]) -> None:
        original(self, targets)
        delay = world.real(self.attributes["deregistration_delay.timeout_seconds"])
        for target in targets:
            world.draining[self.arn, target["Id"]] = time.monotonic() + delay
            world.health.pop((self.arn, target["Id"]), None)

    @around(elb.FakeTargetGroup, "register")  # back before the drain was over
    def register(original: Function, self: Any, targets: list[dict[str, Any]]) -> None:
        original(self, targets)
        for target in targets:
            world.draining.pop((self.arn, target["Id"]), None)

    @around(elb.ELBv2Backend, "describe_target_health")  # AWS lists the draining targets too
    def describe(original: Function, self: Any, target_group_arn: str, targets: list[dict[str, Any]]) -> Any:
        group = self.target_groups.get(target_group_arn)
        if group is None or targets:
            return original(self, target_group_arn, targets)
        now, left = time.monotonic(), group.deregistered_targets.items()
        draining = [target for key, target in left if world.draining.get((group.arn, key), 0) > now]
        return [group.health_for(target, self.ec2_backend) for target in [*group.targets.values(), *draining]]


def groups(_: World) -> None:
    """Scaling groups: moto launches and terminates inside the call; AWS, and the control loop here, do it later."""

    @instead(scaling.FakeAutoScalingGroup, "set_desired_capacity")
    def set_desired(self: Any, capacity: int | None) -> None:
        wanted = int(self.min_size if capacity is None else capacity)
        for wrong, name, bound in (
            (wanted > self.max_size, "above max", self.max_size),
            (wanted < self.min_size, "below min", self.min_size),
        ):
            if wrong:
                raise ValidationError(
                    f"New SetDesiredCapacity value {wanted} is {name} value {bound} for the AutoScalingGroup."
                )
        self.desired_capacity = wanted

    @around(scaling.FakeAutoScalingGroup, "update")  # AWS moves the wish into the new bounds
    def update(original: Function, self: Any, **given: Any) -> None:
        if given.get("desired_capacity") is None:
            low, high = (getattr(self, n) if given.get(n) is None else given[n] for n in ("min_size", "max_size"))
            given["desired_capacity"] = min(max(self.desired_capacity, low), high)
        original(self, **given)

    @instead(scaling.AutoScalingBackend, "update_attached_target_groups")  # only what is in service, once
    def update_targets(self: Any, group_name: str) -> None:
        group = self.autoscaling_groups[group_name]
        for target_group in filter(None, map(self.elbv2_backend.target_groups.get, group.target_group_arns)):
            for state in group.active_instances():
                if state.instance.state == "running" and state.instance.id not in target_group.targets:
                    target_group.register([{"Id": state.instance.id, "Port": target_group.port}])


def instances(world: World) -> None:
    """Instances: what becomes of those in scaling groups, and what they said."""

    @instead(scaling.AutoScalingBackend, "delete_auto_scaling_group")  # with all that lives in the group
    def delete(self: Any, group_name: str) -> None:
        if group_name not in self.autoscaling_groups:
            raise ValidationError(f"AutoScalingGroup name not found - AutoScalingGroup '{group_name}' not found")
        group = self.autoscaling_groups.pop(group_name)
        ids = [state.instance.id for state in group.instance_states]
        for arn, target in itertools.product(group.target_group_arns, ids):
            world.drop(arn, target)
        if ids:
            self.ec2_backend.terminate_instances(ids)
        for table in (self.lifecycle_hooks, self.policies, self.scheduled_actions):
            kept = {key: value for key, value in table.items() if value.auto_scaling_group_name != group_name}
            table.clear()
            table.update(kept)

    @instead(scaling.AutoScalingBackend, "terminate_instance")  # through hooks and draining
    def terminate(self: Any, instance_id: str, should_decrement: bool) -> Any:  # noqa: FBT001  moto's signature
        states = [
            s for g in self.autoscaling_groups.values() for s in g.instance_states if s.instance.id == instance_id
        ]
        if not states:
            raise ValidationError(f"Instance Id not found - No managed instance found for instance ID: {instance_id}")
        group = states[0].auto_scaling_group
        original = group.desired_capacity
        if should_decrement:
            group.set_desired_capacity(original - 1)
        states[0].lifecycle_state = "Terminating"
        return scaling.TerminateInstanceActivity(states[0].instance, original)

    @instead(General, "get_console_output")  # moto has the lines of some machine of 2006
    def get_console_output(self: Any) -> ActionResult:
        instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
        gone = world.consoles.get(instance.id)
        said = world.console(instance.id) if gone is None else gone
        output = Base64EncodedString.from_raw_string(said)
        return ActionResult({"InstanceId": instance.id, "Timestamp": datetime.now(UTC), "Output": output})

    @instead(scaling.AutoScalingBackend, "notify_terminate_instances")  # the loop launches the replacement
    def forget(self: Any, instance_ids: list[str]) -> None:
        for group in self.autoscaling_groups.values():
            group.instance_states = [s for s in group.instance_states if s.instance.id not in instance_ids]


def versions(_: World) -> None:
    """Scaling groups: the template version that an instance was launched from; moto names the template's default."""

    def launched_from(self: Any) -> dict[str, str] | None:
        template = self.auto_scaling_group.ec2_launch_template
        if template is None:
            return None
        version = {tag["key"]: tag["value"] for tag in self.instance.get_tags()}.get(
            "aws:ec2launchtemplate:version", "1"
        )
        return {"LaunchTemplateId": template.id, "LaunchTemplateName": template.name, "Version": version}

    scaling.InstanceState.launch_template = property(launched_from)


def waiting(world: World) -> None:
    """Lifecycle actions, which moto lacks."""

    def held(self: Any) -> Wait:
        instance, token, hook = map(self._get_param, ("InstanceId", "LifecycleActionToken", "LifecycleHookName"))
        for (holder, _), waits in world.waits.items():
            for wait in waits:
                if wait.hook == hook and (wait.token == token if token else holder == instance):
                    return wait
        raise ValidationError(f"No active Lifecycle Action found with instance ID {instance}")

    @around(AutoScalingResponse, "create_auto_scaling_group")  # moto drops the hooks that come with a group
    def create(original: Function, self: Any) -> Any:
        made = original(self)
        for hook in self._get_params().get("LifecycleHookSpecificationList", []):
            self.autoscaling_backend.create_lifecycle_hook(
                hook["LifecycleHookName"], self._get_param("AutoScalingGroupName"), hook["LifecycleTransition"],
                int(hook.get("HeartbeatTimeout", 3600)), hook.get("DefaultResult", "ABANDON"),
            )  # fmt: skip
        return made

    @instead(AutoScalingResponse, "complete_lifecycle_action")
    def complete(self: Any) -> EmptyResult:
        held(self).result = self._get_param("LifecycleActionResult")
        return EmptyResult()

    @instead(AutoScalingResponse, "record_lifecycle_action_heartbeat")
    def heartbeat(self: Any) -> EmptyResult:
        wait = held(self)
        hook = self.autoscaling_backend.lifecycle_hooks[f"{self._get_param('AutoScalingGroupName')}_{wait.hook}"]
        wait.deadline = time.monotonic() + world.real(hook.heartbeat_timeout)
        return EmptyResult()


def refreshing(world: World) -> None:
    """Scaling activities and instance refresh, which moto lacks."""

    @instead(AutoScalingResponse, "describe_scaling_activities")
    def activities(self: Any) -> ActionResult:
        return ActionResult({"Activities": world.activities.get(self._get_param("AutoScalingGroupName"), [])[:100]})

    @instead(AutoScalingResponse, "start_instance_refresh")
    def start(self: Any) -> ActionResult:
        name, given = self._get_param("AutoScalingGroupName"), self._get_params()
        group, refreshes = self.autoscaling_backend.autoscaling_groups[name], world.refreshes.setdefault(name, [])
        if refreshes and refreshes[0]["Status"] in RUNNING:
            raise ValidationError("An Instance Refresh is already in progress and blocks the execution of this one.")
        wish = (given.get("DesiredConfiguration") or {}).get("LaunchTemplate")
        if wish:
            group._set_launch_configuration(None, wish, None)  # noqa: SLF001  moto has no public name for it
        preferences = {k: int(v) if str(v).isdigit() else v for k, v in (given.get("Preferences") or {}).items()}
        old = [state.instance.id for state in group.instance_states]
        refresh = {"InstanceRefreshId": str(uuid.uuid4()), "AutoScalingGroupName": name, "Status": "Pending",
                   "StartTime": datetime.now(UTC), "PercentageComplete": 0, "InstancesToUpdate": len(old),
                   "Preferences": preferences, "_old": old}  # fmt: skip
        refreshes.insert(0, refresh)
        return ActionResult({"InstanceRefreshId": refresh["InstanceRefreshId"]})

    @instead(AutoScalingResponse, "describe_instance_refreshes")
    def describe(self: Any) -> ActionResult:
        wanted, all_ = (
            self._get_param("InstanceRefreshIds", []),
            world.refreshes.get(self._get_param("AutoScalingGroupName"), []),
        )
        found = [r for r in all_ if not wanted or r["InstanceRefreshId"] in wanted]
        return ActionResult({"InstanceRefreshes": [{k: v for k, v in r.items() if k != "_old"} for r in found]})

    @instead(AutoScalingResponse, "cancel_instance_refresh")
    def cancel(self: Any) -> ActionResult:
        for refresh in world.refreshes.get(self._get_param("AutoScalingGroupName"), []):
            if refresh["Status"] in RUNNING:
                refresh.update(Status="Cancelled", EndTime=datetime.now(UTC))
                return ActionResult({"InstanceRefreshId": refresh["InstanceRefreshId"]})
        raise ValidationError("No in progress or pending Instance Refresh found for this Auto Scaling group")


def compute(world: World) -> None:
    """EC2: templates, tags, and images that take time to make."""

    @around(templates.LaunchTemplate, "create_version")
    def create_version(original: Function, self: Any, data: dict[str, Any], description: str) -> Any:
        # the template's own tags are not part of its data, else each run sees a change
        specs = [s for s in data.get("TagSpecifications") or [] if s.get("ResourceType") != "launch-template"]
        data = {
            **{k: v for k, v in data.items() if k != "TagSpecifications"},
            **({"TagSpecifications": specs} if specs else {}),
        }
        if isinstance(data.get("UserData"), str):  # version 2 and later keep a plain str; launching then fails
            data["UserData"] = Base64EncodedString(data["UserData"])
        return original(self, data, description)

    @around(ec2_tags.TagBackend, "describe_tags")  # AWS calls this type "natgateway"
    def describe_tags(original: Function, self: Any, filters: Any = None) -> Any:
        if filters and "resource-type" in filters:
            types = ["nat-gateway" if v == "natgateway" else v for v in filters["resource-type"]]
            filters = {**filters, "resource-type": types}
        found = original(self, filters)
        for tag in found:
            if tag.get("resource_type") == "nat-gateway":
                tag["resource_type"] = "natgateway"
        return found

    @around(InstanceBackend, "run_instances")  # moto forgets the security groups of a network card
    def run_instances(original: Function, self: Any, *args: Any, **kwargs: Any) -> Any:
        reservation = original(self, *args, **kwargs)
        cards = [card for card in kwargs.get("nics") or [] if card.get("Groups")]
        for instance in reservation.instances if cards else ():
            instance.security_groups = [
                self.get_security_group_from_id(key) for card in cards for key in card["Groups"]
            ]
        return reservation

    @around(InstanceBackend, "reboot_instances")  # moto only notes it
    def reboot_instances(original: Function, self: Any, instance_ids: list[str]) -> Any:
        world.rebooting.update(instance_ids)
        return original(self, instance_ids)

    # there is no image before the container is committed; moto cannot tag the snapshot on the way
    @around(AmiBackend, "create_image")
    def create_image(original: Function, self: Any, *args: Any, **kwargs: Any) -> Any:
        given = kwargs.get("tag_specifications") or []
        kwargs["tag_specifications"] = [row for row in given if row["ResourceType"] != "snapshot"]
        image = original(self, *args, **kwargs)
        for tag in (tag for row in given if row["ResourceType"] == "snapshot" for tag in row["Tags"]):
            image.ebs_snapshot.add_tag(tag["Key"], tag["Value"])
        image.state = "pending" if world.settings.bodies else "available"
        return image


def databases(world: World) -> None:
    """RDS: errors, defaults and flags that modules look at; a database takes time to start."""

    @around(rds.RDSBackend, "describe_db_parameter_groups")  # a missing group is an error, not an empty list
    def describe(original: Function, self: Any, given: dict[str, Any]) -> Any:
        found = original(self, given)
        if not found and given.get("db_parameter_group_name"):
            raise DBParameterGroupNotFoundError(given["db_parameter_group_name"])
        return found

    def unused(key: str, code: str) -> Function:  # AWS keeps what a database still needs
        def delete(original: Function, self: Any, name: str) -> Any:
            for each in self.databases.values():
                if getattr(each, key) == name:
                    raise RDSClientError(code, f"{name} is in use by {each.db_instance_identifier}")
            return original(self, name)

        return delete

    around(rds.RDSBackend, "delete_db_parameter_group")(
        unused("db_parameter_group_name", "InvalidDBParameterGroupState")
    )
    around(rds.RDSBackend, "delete_subnet_group")(unused("db_subnet_group_name", "InvalidDBSubnetGroupStateFault"))

    @around(rds.DBInstance, "__init__")
    def initialise(original: Function, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if self.storage_type == "gp3":  # AWS always reports these
            self._storage_throughput = self._storage_throughput or 125
            self.iops = self.iops or 3000
        if world.settings.bodies and str(self.engine).startswith("postgres"):
            self.status = "creating"

    def flagged(original: Function, self: Any, *args: Any) -> Any:  # moto does not model the flag
        database, flag = original(self, *args), args[-1].get("enable_performance_insights")
        if flag is not None:
            database.performance_insights_enabled = str(flag).lower() == "true"
        return database

    rds.DBInstance.performance_insights_enabled = False
    around(rds.RDSBackend, "create_db_instance")(flagged)
    around(rds.RDSBackend, "modify_db_instance")(flagged)


def database_restores(world: World) -> None:
    """RDS: a database that begins as another was at a moment, and databases that get another name."""

    @around(rds.RDSBackend, "restore_db_instance_to_point_in_time")  # moto looks at neither its time nor its place
    def restored(original: Function, self: Any, source: str, name: str, given: dict[str, Any]) -> Any:
        said, latest = given.get("RestoreTime"), self.describe_db_instances(source)[0].latest_restorable_time
        at = said if isinstance(said, datetime) or not said else datetime.fromisoformat(str(said))
        at = at.replace(tzinfo=at.tzinfo or UTC) if at else None
        if at and at > latest.replace(tzinfo=UTC):
            raise RDSClientError(
                "InvalidParameterValue",
                f"The specified instance cannot be restored to a time later than {latest:%FT%TZ}.",
            )
        place = {"db_subnet_group_name": "DBSubnetGroupName", "db_parameter_group_name": "DBParameterGroupName",
                 "vpc_security_group_ids": "VpcSecurityGroupIds", "tags": "Tags"}  # fmt: skip
        made = original(self, source, name, {key: given.get(word) for key, word in place.items()})
        world.restored[name] = source, at.isoformat() if at else ""
        return made

    @around(rds.RDSBackend, "modify_db_instance")
    def modified(original: Function, self: Any, name: str, given: dict[str, Any]) -> Any:
        now = given.get("new_db_instance_identifier") or name
        if now != name and now in self.databases:
            raise rds.DBInstanceAlreadyExists
        database = original(self, name, given)
        if now != name:
            world.renamed.append((name, now))
            if world.settings.bodies:
                database.status = "renaming"
            if name in world.addresses:
                world.addresses[now] = world.addresses.pop(name)
            if name in world.restored:
                world.restored[now] = world.restored.pop(name)
        return database


def others(world: World) -> None:
    """CloudWatch, CloudTrail, SNS, ACM and WAF."""
    moto_settings.ACM_VALIDATION_WAIT = world.real(60)  # a request is granted after a minute of the cloud

    @instead(
        s3.FakeBucket, "get_permission"
    )  # moto looks at no condition: "deny what is not TLS" would deny everything
    def permission(self: Any, action: str, resource: str) -> PermissionResult:
        if self.policy is None:
            return PermissionResult.NEUTRAL
        document = json.loads(self.policy)
        kept = [s for s in document["Statement"] if s["Effect"] != "Deny" or "Condition" not in s]
        return IAMPolicy(json.dumps({**document, "Statement": kept})).is_action_permitted(action, resource)

    @around(trails.CloudTrailBackend, "delete_trail")  # the ARN is a name too
    def delete_trail(original: Function, self: Any, name: str) -> None:
        original(self, name.rsplit("/", 1)[-1])

    @around(cloudwatch.Alarm, "__init__")  # a new alarm knows nothing yet
    def unknown(original: Function, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.state_value = "INSUFFICIENT_DATA"

    @around(sns.Topic, "publish")  # a message to a person arrives in the mailbox
    def publish(original: Function, self: Any, message: str, subject: str | None = None, **kwargs: Any) -> Any:
        mail = world.settings.directory / "mail"
        mail.mkdir(parents=True, exist_ok=True)
        for person in self.sns_backend.subscriptions.values():
            if person.topic.arn == self.arn and person.protocol in {"email", "email-json", "sms"}:
                head = f"Date: {datetime.now(UTC):%a, %d %b %Y %H:%M:%S +0000}\nFrom: {self.arn}\nTo: {person.endpoint}"
                name = re.sub(r"[^\w@.+-]", "_", person.endpoint)
                text = f"{head}\nSubject: {subject or 'AWS Notification Message'}\n\n{message}\n"
                (mail / f"{time.time_ns()}-{name}.eml").write_text(text)
        return original(self, message, subject=subject, **kwargs)

    @around(acm.CertBundle, "__init__")  # the chain as it was given, else each run imports the certificate again
    def bundle(original: Function, self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.chain = kwargs.get("chain") or self.chain

    @instead(WAFV2Response, "list_resources_for_web_acl")
    def resources(self: Any) -> tuple[int, dict[str, str], str]:
        acl = self.wafv2_backend.wacls.get(self._get_param("WebACLArn"))
        return 200, {}, json.dumps({"ResourceArns": list(acl.associated_resources) if acl else []})


def logging(world: World) -> None:
    """Logs: events make metrics."""

    @around(log_models.LogStream, "put_log_events")  # moto keeps metric filters and does not apply them
    def put_log_events(original: Function, self: Any, events: list[dict[str, Any]]) -> Any:
        filters = world.backend("logs").filters.get_matching_filters(log_group_name=self.log_group.name)
        for namespace, datum in (made for event in events for made in from_logs(filters, event["message"])):
            world.backend("cloudwatch").put_metric_data(namespace, [datum])
        return original(self, events)

    @around(log_models.LogsBackend, "delete_log_group")  # its filters go with it
    def delete_log_group(original: Function, self: Any, log_group_name: str) -> None:
        original(self, log_group_name)
        kept = [one for one in self.filters.metric_filters if one["logGroupName"] != log_group_name]
        self.filters.metric_filters = kept


def queries(_: World) -> None:
    """Logs: queries are saved, which moto lacks."""
    saved: dict[str, dict[str, Any]] = {}

    @instead(LogsResponse, "put_query_definition")
    def put_query(self: Any) -> str:
        identity = self._get_param("queryDefinitionId") or str(uuid.uuid4())
        saved[identity] = {"queryDefinitionId": identity, "lastModified": int(time.time() * 1000),
                             **{key: self._get_param(key) for key in ("name", "queryString", "logGroupNames")}}  # fmt: skip
        return json.dumps({"queryDefinitionId": identity})

    @instead(LogsResponse, "describe_query_definitions")
    def describe_queries(self: Any) -> str:
        prefix = self._get_param("queryDefinitionNamePrefix") or ""
        return json.dumps({"queryDefinitions": [q for q in saved.values() if q["name"].startswith(prefix)]})

    @instead(LogsResponse, "delete_query_definition")
    def delete_query(self: Any) -> str:
        return json.dumps({"success": saved.pop(self._get_param("queryDefinitionId"), None) is not None})


def money(_: World) -> None:
    """Budgets: moto can neither change one nor tell who hears of it."""

    def budget(self: Any, name: str) -> Any:
        account = self._get_param("AccountId")
        self.backend.describe_budget(account_id=account, budget_name=name)  # says when there is none
        return self.backend.budgets[account][name]

    @instead(BudgetsResponse, "update_budget")
    def update(self: Any) -> str:
        wanted = self._get_param("NewBudget")
        found = budget(self, wanted["BudgetName"])
        found.budget = budgets.Budget(wanted, []).budget
        return json.dumps({})

    @instead(BudgetsResponse, "describe_subscribers_for_notification")
    def subscribers(self: Any) -> str:
        wanted = self._get_param("Notification")
        found = [n for n in budget(self, self._get_param("BudgetName")).notifications if n.details == wanted]
        return json.dumps({"Subscribers": [person for n in found for person in n.subscribers], "NextToken": None})
