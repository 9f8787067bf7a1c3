"""The control loop of scaling groups: keeps the number, replaces the sick, obeys hooks, schedules, targets and refreshes."""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

from cronsim import CronSim

from emulator.patches import LAUNCHING, TERMINATING
from emulator.world import Wait, World

HIGH, LOW = 3, 15  # minutes of the cloud over the target before scaling out, and under it before scaling in
SLACK = 0.9  # scale in only below this share of the target


class Scaling:
    """One step of every scaling group at a time; call ``step`` under no lock."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.seen: dict[str, list[tuple[float, float]]] = {}  # policy: (when, value)
        self.cooling: dict[str, float] = {}  # group: no scaling before
        self.fired: dict[str, str] = {}  # scheduled action: the minute in which it last ran
        self.minute = ""

    def step(self) -> None:
        """Bring every group one step nearer to what it should be."""
        with self.world.lock:
            backend = self.world.backend("autoscaling")
            self._schedules(backend)
            for group in list(backend.autoscaling_groups.values()):
                for state in list(group.instance_states):
                    self._instance(group, state)
                self._refresh(group)
                self._track(group)
                self._count(group)
                backend.update_attached_target_groups(group.name)

    def _active(self, group: Any, process: str) -> bool:
        return all(p["ProcessName"] != process for p in group.suspended_processes)

    def _enter(self, state: Any, name: str) -> None:
        state.lifecycle_state = name
        self.world.since[state.instance.id] = time.monotonic()

    def _age(self, instance: str) -> float:
        return time.monotonic() - self.world.since.setdefault(instance, time.monotonic())

    # ------------------------------------------------------------------ one instance
    def _instance(self, group: Any, state: Any) -> None:
        phase, instance = state.lifecycle_state, state.instance
        if phase.startswith("Pending"):
            if instance.state != "running":
                self.terminate(group, state, "an instance was terminated before it came into service")
            elif phase == "Pending" and self._running(instance.id):
                self._hook(group, state, LAUNCHING)
            elif phase == "Pending:Wait":
                self._held(group, state, LAUNCHING)
        elif phase == "InService":
            reason = self._sick(group, state) if self._active(group, "HealthCheck") else None
            if reason and self._active(group, "ReplaceUnhealthy"):
                self.terminate(group, state, f"an instance was taken out of service in response to {reason}")
        elif phase == "Terminating":
            for arn in group.target_group_arns:
                self.world.drop(arn, instance.id)
            self._hook(group, state, TERMINATING)
        elif phase == "Terminating:Wait":
            self._held(group, state, TERMINATING)
        elif phase == "Terminating:Proceed":
            self._bury(group, state)

    def _running(self, instance: str) -> bool:
        return not self.world.settings.bodies or instance in self.world.booted

    def _sick(self, group: Any, state: Any) -> str | None:
        instance = state.instance
        if instance.state != "running":
            return "an EC2 health check indicating it has been terminated or stopped."
        if state.health_status == "Unhealthy":
            return "a user health-check."
        graceful = self._age(instance.id) < self.world.real(group.health_check_grace_period or 0)
        if group.health_check_type == "ELB" and not graceful:
            arns = [arn for arn in group.target_group_arns if self._in_use(arn)]
            if any(self.world.health_of(arn, instance.id).state == "unhealthy" for arn in arns):
                return "an ELB system health check failure."
        return None

    def _in_use(self, arn: str) -> bool:
        group = self.world.backend("elbv2").target_groups.get(arn)
        return group is not None and group.health_check_enabled

    def _hook(self, group: Any, state: Any, transition: str) -> None:
        """Hold an instance at its hooks, or let it pass."""
        backend = self.world.backend("autoscaling")
        hooks = [h for h in backend.describe_lifecycle_hooks(group.name) if h.lifecycle_transition == transition]
        key = (state.instance.id, transition)
        if hooks and state.instance.state == "running":
            now = time.monotonic()
            self.world.waits[key] = [
                Wait(h.name, now + self.world.real(h.heartbeat_timeout), str(uuid.uuid4())) for h in hooks
            ]
            self._enter(state, "Pending:Wait" if transition == LAUNCHING else "Terminating:Wait")
        else:
            self._pass(group, state, transition)

    def _held(self, group: Any, state: Any, transition: str) -> None:
        key, backend = (state.instance.id, transition), self.world.backend("autoscaling")
        waits = self.world.waits.get(key, [])
        for wait in waits:
            hook = backend.lifecycle_hooks.get(f"{group.name}_{wait.hook}")
            if wait.result is None and (hook is None or time.monotonic() > wait.deadline):
                wait.result = "CONTINUE" if hook is None else hook.default_result
        results = {wait.result for wait in waits}
        if transition == LAUNCHING and "ABANDON" in results:
            self.world.waits.pop(key, None)
            self.terminate(group, state, "a lifecycle hook abandoned the launch", "Failed")
        elif None not in results:
            self.world.waits.pop(key, None)
            self._pass(group, state, transition)

    def _pass(self, group: Any, state: Any, transition: str) -> None:
        if transition == TERMINATING:
            self._enter(state, "Terminating:Proceed")
            return
        self._enter(state, "InService")
        cause = f"the group has a desired capacity of {group.desired_capacity}"
        self.world.activity(group.name, f"Launching a new EC2 instance: {state.instance.id}", cause)

    def terminate(self, group: Any, state: Any, cause: str, status: str = "Successful") -> None:
        """Start the end of an instance: drain, hooks, then termination."""
        self._enter(state, "Terminating")
        self.world.activity(group.name, f"Terminating EC2 instance: {state.instance.id}", cause, status)

    def _bury(self, group: Any, state: Any) -> None:
        instance = state.instance
        now = time.monotonic()
        draining, open_ = self.world.draining.items(), self.world.open
        # what nobody has looked at yet counts as open
        drains = [key for key, until in draining if key[1] == instance.id and until > now and open_.get(key, 1)]
        if self.world.settings.bodies and drains and instance.state == "running" and self._running(instance.id):
            return
        group.instance_states = [s for s in group.instance_states if s is not state]
        if instance.state != "terminated":
            self.world.backend("ec2").terminate_instances([instance.id])
        for table in (self.world.since, self.world.metrics):
            table.pop(instance.id, None)

    # ------------------------------------------------------------------ numbers
    def _count(self, group: Any) -> None:
        alive = [s for s in group.instance_states if not s.lifecycle_state.startswith(("Terminating", "Standby"))]
        missing = (group.desired_capacity or 0) + self._extra(group) - len(alive)
        if missing > 0 and self._active(group, "Launch"):
            for _ in range(missing):
                self._launch(group)
        elif missing < 0 and self._active(group, "Terminate"):
            for state in self._victims(alive)[:-missing]:
                self.terminate(
                    group, state, f"a difference between desired and actual capacity: {group.desired_capacity}"
                )

    def _launch(self, group: Any) -> None:
        ec2 = self.world.backend("ec2")
        subnets = [ec2.get_subnet(s) for s in (group.vpc_zone_identifier or "").split(",") if s]
        open_ = [s for s in subnets if s.availability_zone not in self.world.suspended] or [None][: 0 if subnets else 1]
        if not open_:
            self.world.problems[f"scaling {group.name}"] = "no zone of the group is available"
            return
        self.world.problems.pop(f"scaling {group.name}", None)
        used = Counter(s.instance.subnet_id for s in group.instance_states if s.lifecycle_state[:4] != "Term")
        subnet = min(open_, key=lambda s: (used[s.id], s.id) if s else (0, ""))
        template, extra = group.ec2_launch_template, {}
        if template is not None:
            data = template.get_version(group.launch_template_version).data
            number = template.get_version(group.launch_template_version).number
            extra = {"launch_template": {"LaunchTemplateId": template.id, "Version": number},
                     "metadata_options": data.get("MetadataOptions") or {}, "key_name": data.get("KeyName")}  # fmt: skip
            nics = data.get("NetworkInterfaces") or [{}]
            extra["security_group_ids"] = list(nics[0].get("Groups") or data.get("SecurityGroupIds") or [])
            extra["associate_public_ip"] = {"true": True, "false": False}.get(
                str(nics[0].get("AssociatePublicIpAddress")).lower()
            )
        reservation = ec2.run_instances(
            group.image_id, 1, group.user_data, [] if template is not None else group.security_groups,
            instance_type=group.instance_type, is_instance_type_default=False, launch_config=group.launch_config,
            tags={"instance": {**group.get_propagated_tags(), **group.instance_tags, "aws:autoscaling:groupName": group.name},
                  "volume": {} if template is None else specified(data, "volume")},
            placement=group.availability_zones[0] if subnet is None else subnet.availability_zone,
            subnet_id=None if subnet is None else subnet.id, region_name=self.world.settings.region, **extra,
        )  # fmt: skip
        instance = reservation.instances[0]
        profile = (data.get("IamInstanceProfile") or {}) if template is not None else {}
        if profile:
            ec2.associate_iam_instance_profile(
                instance.id, iam_instance_profile_name=profile.get("Name"), iam_instance_profile_arn=profile.get("Arn")
            )
        instance.autoscaling_group = group
        from moto.autoscaling.models import InstanceState  # noqa: PLC0415  `status` starts without moto

        state = InstanceState(instance, protected_from_scale_in=group.new_instances_protected_from_scale_in)
        group.instance_states.append(state)
        self._enter(state, "Pending")

    def _victims(self, alive: list[Any]) -> list[Any]:
        """Order instances as the default termination policy does: fullest zone, oldest template version, oldest."""
        zones = Counter(s.availability_zone for s in alive)
        rank: list[Any] = []
        left = [s for s in alive if not s.protected_from_scale_in]
        while left:
            pick = min(left, key=lambda s: (s.lifecycle_state == "InService", -zones[s.availability_zone],
                                            int((s.launch_template or {}).get("Version", 0)), s.instance.launch_time))  # fmt: skip
            zones[pick.availability_zone] -= 1
            left.remove(pick)
            rank.append(pick)
        return rank

    # ------------------------------------------------------------------ instance refresh
    def _current(self, group: Any) -> dict[str, Any] | None:
        found = self.world.refreshes.get(group.name, [])[:1]
        return found[0] if found and found[0]["Status"] in {"Pending", "InProgress"} else None

    def _extra(self, group: Any) -> int:
        """Return how many instances a refresh may have above the desired capacity."""
        refresh = self._current(group)
        if refresh is None or not any(s.instance.id in refresh["_old"] for s in group.instance_states):
            return 0
        desired = int(group.desired_capacity)
        return max(0, math.floor(desired * (int(refresh["Preferences"].get("MaxHealthyPercentage", 100)) - 100) / 100))

    def healthy(self, group: Any) -> list[Any]:
        """Return the instances that are in service and healthy in every target group."""
        arns, health = group.target_group_arns, self.world.health_of
        return [
            s for s in group.active_instances() if all(health(arn, s.instance.id).state == "healthy" for arn in arns)
        ]

    def _refresh(self, group: Any) -> None:
        refresh = self._current(group)
        if refresh is None:
            return
        preferences, old = (
            refresh["Preferences"],
            [s for s in group.active_instances() if s.instance.id in refresh["_old"]],
        )
        if refresh["Status"] == "Pending":
            refresh["Status"] = "InProgress"
            if preferences.get("SkipMatching") in {True, "true"} and group.ec2_launch_template is not None:
                number = str(group.ec2_launch_template.get_version(group.launch_template_version).number)
                same = {
                    s.instance.id for s in group.instance_states if (s.launch_template or {}).get("Version") == number
                }
                refresh["_old"] = [i for i in refresh["_old"] if i not in same]
                return
        left = [s for s in group.instance_states if s.instance.id in refresh["_old"]]
        total = max(1, len(refresh["_old"]))
        refresh.update(InstancesToUpdate=len(left), PercentageComplete=100 * (total - len(left)) // total)
        warm = self.world.real(preferences.get("InstanceWarmup", group.health_check_grace_period or 0))
        ready = [s for s in self.healthy(group) if s.instance.id in refresh["_old"] or self._age(s.instance.id) >= warm]
        desired = group.desired_capacity or 0
        if not left and len(ready) >= desired:
            refresh.update(Status="Successful", EndTime=datetime.now(UTC), PercentageComplete=100)
            self.world.say(f"{group.name}: the instance refresh is done")
        floor = min(
            math.ceil(desired * preferences.get("MinHealthyPercentage", 90) / 100), desired + self._extra(group) - 1
        )
        spare = min(len(ready) - floor, len(old))
        for state in old[: max(0, spare)]:
            self.terminate(group, state, "an instance refresh")

    # ------------------------------------------------------------------ target tracking and schedules
    def _track(self, group: Any) -> None:
        there = len(group.active_instances())
        if not self._active(group, "AlarmNotification") or not there:  # nobody is measured
            return
        wishes: list[tuple[int, str, bool, float]] = []
        for policy in list(self.world.backend("autoscaling").policies.values()):
            tracking = policy.target_tracking_configuration
            if policy.auto_scaling_group_name != group.name or tracking is None:
                continue
            specification = getattr(tracking, "PredefinedMetricSpecification", {}) or {}
            value = self._metric(group, str(specification.get("PredefinedMetricType")))
            if value is not None:
                wish = self.follow(policy.name, value, float(tracking.TargetValue), there)
                can_shrink = str(getattr(tracking, "DisableScaleIn", False)).lower() != "true"
                pause = float(policy.estimated_instance_warmup or group.default_cooldown)
                wishes.append((wish, policy.name, can_shrink, pause))
        if wishes:  # the largest wish of all counts: a group shrinks only when no policy is against it
            wish, name, _, pause = max(wishes)
            self._resize(group, name, wish, pause, shrink=all(can for _, _, can, _ in wishes))

    def _metric(self, group: Any, kind: str) -> float | None:
        ids = [s.instance.id for s in group.active_instances()]
        values = [self.world.metrics[key] for key in ids if key in self.world.metrics]
        if kind == "ALBRequestCountPerTarget":
            return sum(self.world.metrics.get(f"requests {arn}", 0.0) for arn in group.target_group_arns) / max(
                1, len(ids)
            )
        return sum(values) / len(values) if kind == "ASGAverageCPUUtilization" and values else None

    def follow(self, policy: str, value: float, target: float, now_there: int) -> int:
        """Return the number of instances that brings a metric to its target, once it is clear enough."""
        now, history = time.monotonic(), self.seen.setdefault(policy, [])
        history.append((now, value))
        minute = self.world.real(60)
        history[:] = [(when, v) for when, v in history if now - when <= (LOW + 1) * minute]
        begun = now - history[0][0]
        recent = [v for when, v in history if now - when <= HIGH * minute]
        if begun >= HIGH * minute and min(recent) > target:
            return math.ceil(now_there * (sum(recent) / len(recent)) / target)
        if begun >= LOW * minute and max(v for _, v in history) < target * SLACK:
            return max(now_there - 1, math.ceil(now_there * value / target))
        return now_there

    def _resize(self, group: Any, policy: str, wish: int, pause: float, *, shrink: bool) -> None:
        now, desired = time.monotonic(), group.desired_capacity or 0
        wish = min(max(wish, int(group.min_size)), int(group.max_size))
        if wish == desired or (wish < desired and not shrink) or now < self.cooling.get(group.name, 0):
            return
        if any(s.lifecycle_state.startswith("Pending") for s in group.instance_states):
            return
        group.set_desired_capacity(wish)
        self.cooling[group.name] = now + self.world.real(pause)
        self.seen.pop(policy, None)
        self.world.activity(group.name, f"Setting desired capacity from {desired} to {wish}", f"policy {policy}")

    def _schedules(self, backend: Any) -> None:
        now = datetime.now(UTC)
        if self.minute == (minute := now.strftime("%F %R")):
            return
        self.minute = minute
        for action in list(backend.scheduled_actions.values()):
            group = backend.autoscaling_groups.get(action.auto_scaling_group_name)
            if group is None or not self._active(group, "ScheduledActions") or not due(action, now, self.fired):
                continue
            wish = action.desired_capacity
            group.min_size = group.min_size if action.min_size is None else int(action.min_size)
            group.max_size = group.max_size if action.max_size is None else int(action.max_size)
            group.set_desired_capacity(
                min(max(int(wish if wish is not None else group.desired_capacity), group.min_size), group.max_size)
            )
            self.world.activity(
                group.name, f"Setting desired capacity to {group.desired_capacity}", action.scheduled_action_name
            )


def specified(data: dict[str, Any], kind: str) -> dict[str, str]:
    """Return the tags that a launch template gives to what is launched from it."""
    rows = (row for row in data.get("TagSpecifications") or [] if row["ResourceType"] == kind)
    return {tag["Key"]: tag["Value"] for row in rows for tag in row["Tags"]}


def due(action: Any, now: datetime, fired: dict[str, str]) -> bool:
    """Return whether a scheduled action runs in this minute."""

    def moment(text: Any) -> datetime | None:
        if not text:
            return None
        parsed = text if isinstance(text, datetime) else datetime.fromisoformat(str(text))
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)

    start, end = moment(action.start_time), moment(action.end_time)
    if (start and now < start) or (end and now > end):
        return False
    name = f"{action.auto_scaling_group_name}/{action.scheduled_action_name}"
    if not action.recurrence:
        once = start is not None and name not in fired
        fired.setdefault(name, str(now))
        return once
    return cron(str(action.recurrence), now)


def cron(expression: str, now: datetime) -> bool:
    """Return whether a five-field cron expression matches a minute (UTC)."""
    minute = now.replace(second=0, microsecond=0)
    return bool(next(CronSim(expression, minute - timedelta(minutes=1)), None) == minute)
