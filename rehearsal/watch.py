"""CloudWatch brought to life: metrics of machines and balancers, and alarms that are evaluated and act."""

from __future__ import annotations

import csv
import io
import json
import operator
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from rehearsal.balancer import serving, short
from rehearsal.containers import ask_socket
from rehearsal.world import World

COMPARE = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
RETENTION = timedelta(hours=3)


class Watch:
    """The loop of metrics and alarms."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.published = 0.0
        self.totals: dict[tuple[str, str], float] = {}
        self.acted: dict[str, str] = {}

    def step(self) -> None:
        """Publish metrics once a minute of the cloud; evaluate every alarm."""
        now = time.monotonic()
        if now - self.published >= self.world.real(60):
            stats = {arn: self._stats(arn) for arn in list(self.world.processes) if arn.startswith("arn:")}
            with self.world.lock:
                self._publish(stats, now - self.published if self.published else self.world.real(60))
            self.published = now
        with self.world.lock:
            for alarm in list(self.world.backend("cloudwatch").alarms.values()):
                self._evaluate(alarm)

    def _stats(self, arn: str) -> list[dict[str, str]]:
        """Return HAProxy's counters."""
        try:
            text = ask_socket(self.world.settings.directory / "balancers" / short(arn) / "admin.sock", "show stat\n")
        except OSError:
            return []
        return list(csv.DictReader(io.StringIO(text.removeprefix("# "))))

    def _grown(self, key: tuple[str, str], total: float) -> float:
        """Return by how much a counter grew; HAProxy counts from zero after a reload."""
        before = self.totals.get(key, 0.0)
        self.totals[key] = total
        return total - before if total >= before else total

    def _publish(self, stats: dict[str, list[dict[str, str]]], seconds: float) -> None:
        world, put = self.world, self._put
        groups = {short(arn): g for arn, g in world.backend("elbv2").target_groups.items()}
        for arn, rows in stats.items():
            balancer = {"LoadBalancer": arn.split(":loadbalancer/")[-1]}
            for row in (r for r in rows if r["svname"] == "BACKEND" and r["pxname"] in groups):
                group = groups[row["pxname"]]
                dimensions = {**balancer, "TargetGroup": group.arn.split(":")[-1]}
                grown = {
                    k: self._grown((arn + group.arn, k), float(row[k] or 0))
                    for k in ("hrsp_2xx", "hrsp_4xx", "hrsp_5xx", "req_tot")
                }
                world.metrics[f"requests {group.arn}"] = grown["req_tot"] * world.real(60) / max(seconds, 0.001)
                for name, key in (("RequestCount", "req_tot"), ("HTTPCode_Target_2XX_Count", "hrsp_2xx"),
                                  ("HTTPCode_Target_4XX_Count", "hrsp_4xx"), ("HTTPCode_Target_5XX_Count", "hrsp_5xx")):  # fmt: skip
                    for where in (dimensions, balancer):
                        put("AWS/ApplicationELB", name, grown[key], where)
                for where in (dimensions, balancer) if grown["req_tot"] else ():
                    put("AWS/ApplicationELB", "TargetResponseTime", float(row["ttime"] or 0) / 1000, where)
        for group in groups.values():
            for balancer_arn in serving(world.backend("elbv2"), group.arn):
                states = [world.health_of(group.arn, target).state for target in group.targets]
                where = {
                    "LoadBalancer": balancer_arn.split(":loadbalancer/")[-1],
                    "TargetGroup": group.arn.split(":")[-1],
                }
                put("AWS/ApplicationELB", "HealthyHostCount", states.count("healthy"), where)
                put("AWS/ApplicationELB", "UnHealthyHostCount", states.count("unhealthy"), where)
        for fleet in world.backend("autoscaling").autoscaling_groups.values():
            ids = [s.instance.id for s in fleet.active_instances()]
            put("AWS/AutoScaling", "GroupInServiceInstances", len(ids), {"AutoScalingGroupName": fleet.name})
            for cpu in (world.metrics[i] for i in ids if i in world.metrics):
                put("AWS/EC2", "CPUUtilization", cpu, {"AutoScalingGroupName": fleet.name})
        for instance in world.booted:
            if instance in world.metrics:
                put("AWS/EC2", "CPUUtilization", world.metrics[instance], {"InstanceId": instance})
            put("AWS/EC2", "StatusCheckFailed", 0, {"InstanceId": instance})
        data = world.backend("cloudwatch").metric_data
        data[:] = [d for d in data if d.timestamp.replace(tzinfo=UTC) > datetime.now(UTC) - RETENTION]

    def _put(self, namespace: str, name: str, value: float, dimensions: dict[str, str]) -> None:
        named = [{"Name": key, "Value": cell} for key, cell in dimensions.items()]
        datum = {"MetricName": name, "Value": float(value), "Dimensions": named}
        self.world.backend("cloudwatch").put_metric_data(namespace, [datum])

    # ------------------------------------------------------------------ alarms
    def _evaluate(self, alarm: Any) -> None:
        if alarm.metric_data_queries or alarm.rule:
            return  # metric math and composite alarms: docs/REHEARSAL.md
        points = [self._point(alarm, number) for number in range(int(alarm.evaluation_periods))]
        state = judge(points, alarm)
        if state is not None and state != alarm.state_value:
            reason = f"{alarm.metric_name} {points} against {alarm.threshold} ({alarm.comparison_operator})"
            alarm.update_state(reason, json.dumps({"recentDatapoints": points}), state)
            self.world.say(f"alarm {alarm.name} is {state}: {reason}")
        if self.acted.setdefault(alarm.name, "INSUFFICIENT_DATA") != alarm.state_value:
            self.acted[alarm.name] = alarm.state_value  # set_alarm_state acts too
            if alarm.actions_enabled:
                self._act(alarm)

    def _point(self, alarm: Any, number: int) -> float | None:
        """Return the statistic of one period, the latest first."""
        length = timedelta(seconds=self.world.real(float(alarm.period)))
        end = datetime.now(UTC) - number * length
        wanted = {(d.name, d.value) for d in alarm.dimensions}
        values = [
            (d.value, 1) if hasattr(d, "value") else (d.sum, d.sample_count)
            for d in self.world.backend("cloudwatch").metric_data
            if d.namespace == alarm.namespace and d.name == alarm.metric_name and {(x.name, x.value) for x in d.dimensions} == wanted
            and end - length < d.timestamp.replace(tzinfo=UTC) <= end
        ]  # fmt: skip
        if not values:
            return None
        total, count = sum(float(v) for v, _ in values), sum(float(n) for _, n in values)
        each = sorted(float(v) / (float(n) or 1) for v, n in values)
        if alarm.extended_statistic:
            return each[min(len(each) - 1, int(len(each) * float(str(alarm.extended_statistic).lstrip("p")) / 100))]
        return {
            "Sum": total,
            "Average": total / (count or 1),
            "Minimum": each[0],
            "Maximum": each[-1],
            "SampleCount": count,
        }[alarm.statistic]

    def _act(self, alarm: Any) -> None:
        actions = {"ALARM": alarm.alarm_actions, "OK": alarm.ok_actions}.get(
            alarm.state_value, alarm.insufficient_data_actions
        )
        text = json.dumps({"AlarmName": alarm.name, "AlarmDescription": alarm.description, "NewStateValue": alarm.state_value,
                           "NewStateReason": alarm.state_reason, "StateChangeTime": datetime.now(UTC).isoformat()}, indent=1)  # fmt: skip
        for arn in actions or []:
            if ":sns:" in arn:
                topic = self.world.backend("sns").topics.get(arn)
                if topic is not None:
                    topic.publish(text, subject=f"{alarm.state_value}: {alarm.name}"[:100])
            for policy in self.world.backend("autoscaling").policies.values():
                if policy.arn == arn and alarm.state_value == "ALARM":
                    policy.execute()


def judge(points: list[float | None], alarm: Any) -> str | None:
    """Return an alarm's state from its data points; None leaves it as it is."""
    treat = alarm.treat_missing_data or "missing"
    known = [p for p in points if p is not None]
    if not known and treat in {"missing", "ignore"}:
        return "INSUFFICIENT_DATA" if treat == "missing" else None
    compare = COMPARE[alarm.comparison_operator]
    missing = (len(points) - len(known)) if treat == "breaching" else 0
    breaches = sum(compare(p, float(alarm.threshold)) for p in known) + missing
    return "ALARM" if breaches >= int(alarm.datapoints_to_alarm or alarm.evaluation_periods) else "OK"
