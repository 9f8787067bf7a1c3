"""CloudWatch brought to life: metrics of machines and balancers, and alarms that are evaluated and act."""

from __future__ import annotations

import ast
import contextlib
import json
import operator
import re
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

from emulator.world import Traffic, World, serving

COMPARE = {
    "GreaterThanThreshold": operator.gt,
    "GreaterThanOrEqualToThreshold": operator.ge,
    "LessThanThreshold": operator.lt,
    "LessThanOrEqualToThreshold": operator.le,
}
RETENTION = timedelta(hours=3)
MATHS = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Lt: operator.lt, ast.LtE: operator.le,
}  # fmt: skip
TERM = re.compile(
    r"\(?\s*\$\.(\w+)\s*=\s*\"?([^\"()]*)\"?\s*\)?"
)  # of a filter's pattern: { ($.level = "error") || ... }


class Watch:
    """The loop of metrics and alarms."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.published = 0.0
        self.published_at: datetime | None = None
        self.totals: dict[tuple[str, str], float] = {}
        self.acted: dict[str, str] = {}

    def step(self) -> None:
        """Publish metrics once a minute of the cloud; evaluate every alarm."""
        now = time.monotonic()
        if now - self.published >= self.world.real(60):
            told = self.world.counters()
            with self.world.lock:
                self._publish(told, now - self.published if self.published else self.world.real(60))
            self.published, self.published_at = now, datetime.now(UTC)
        unknown: Exception | None = None
        with self.world.lock:
            for alarm in list(self.world.backend("cloudwatch").alarms.values()):
                try:
                    self._evaluate(alarm)
                except (ValueError, KeyError, StopIteration, SyntaxError) as error:  # the others go on
                    unknown = error
        if unknown:
            raise unknown

    def _grown(self, key: tuple[str, str], total: float) -> float:
        """Return by how much a counter grew; HAProxy counts from zero after a reload."""
        before = self.totals.get(key, 0.0)
        self.totals[key] = total
        return total - before if total >= before else total

    def _publish(self, told: Mapping[tuple[str, str], Traffic], seconds: float) -> None:
        world, put = self.world, self._put
        for (arn, group), traffic in told.items():
            balancer = {"LoadBalancer": arn.split(":loadbalancer/")[-1]}
            wheres = ({**balancer, "TargetGroup": group.split(":")[-1]}, balancer)
            requests, *answers = (
                self._grown((arn + group, str(number)), total)
                for number, total in enumerate((traffic.requests, *traffic.answers))
            )
            world.metrics[f"requests {group}"] = requests * world.real(60) / max(seconds, 0.001)
            for where in wheres:
                put("AWS/ApplicationELB", "RequestCount", requests, where)
                for kind, grown in zip(("2XX", "4XX", "5XX"), answers, strict=True):
                    put("AWS/ApplicationELB", f"HTTPCode_Target_{kind}_Count", grown, where)
                if requests:
                    put("AWS/ApplicationELB", "TargetResponseTime", traffic.seconds, where)
        for group in world.backend("elbv2").target_groups.values():
            for balancer_arn in serving(world.backend("elbv2"), group.arn):
                states = [world.health_of(group.arn, target).state for target in group.targets]
                where = {
                    "LoadBalancer": balancer_arn.split(":loadbalancer/")[-1],
                    "TargetGroup": group.arn.split(":")[-1],
                }
                put("AWS/ApplicationELB", "HealthyHostCount", states.count("healthy"), where)
                put("AWS/ApplicationELB", "UnHealthyHostCount", states.count("unhealthy"), where)
        self._publish_hosts()
        data = world.backend("cloudwatch").metric_data
        data[:] = [d for d in data if d.timestamp.replace(tzinfo=UTC) > datetime.now(UTC) - RETENTION]

    def _publish_hosts(self) -> None:
        world, put = self.world, self._put
        for fleet in world.backend("autoscaling").autoscaling_groups.values():
            ids = [s.instance.id for s in fleet.active_instances()]
            put("AWS/AutoScaling", "GroupInServiceInstances", len(ids), {"AutoScalingGroupName": fleet.name})
            for cpu in (world.metrics[i] for i in ids if i in world.metrics):
                put("AWS/EC2", "CPUUtilization", cpu, {"AutoScalingGroupName": fleet.name})
        for held in world.backend("acm").list_certificates([], {}):
            left = (held._cert.not_valid_after_utc - datetime.now(UTC)) / timedelta(days=1)  # noqa: SLF001  moto keeps it there
            put("AWS/CertificateManager", "DaysToExpiry", left, {"CertificateArn": held.arn})
        for instance in world.booted:
            if instance in world.metrics:
                put("AWS/EC2", "CPUUtilization", world.metrics[instance], {"InstanceId": instance})
            put("AWS/EC2", "StatusCheckFailed", 0, {"InstanceId": instance})

    def _put(self, namespace: str, name: str, value: float, dimensions: dict[str, str]) -> None:
        named = [{"Name": key, "Value": cell} for key, cell in dimensions.items()]
        datum = {"MetricName": name, "Value": float(value), "Dimensions": named}
        self.world.backend("cloudwatch").put_metric_data(namespace, [datum])

    # ------------------------------------------------------------------ alarms
    def _evaluate(self, alarm: Any) -> None:
        if alarm.rule:
            return  # composite alarms: docs/REHEARSAL.md
        look = self._result if alarm.metric_data_queries else self._point
        points = [look(alarm, number) for number in range(int(alarm.evaluation_periods))]
        state = judge(points, alarm)
        if state is not None and state != alarm.state_value:
            reason = (
                f"{alarm.metric_name or 'metric math'} {points} against {alarm.threshold} ({alarm.comparison_operator})"
            )
            alarm.update_state(reason, json.dumps({"recentDatapoints": points}), state)
            self.world.say(f"alarm {alarm.name} is {state}: {reason}")
        if self.acted.setdefault(alarm.name, "INSUFFICIENT_DATA") != alarm.state_value:
            self.acted[alarm.name] = alarm.state_value  # set_alarm_state acts too
            if alarm.actions_enabled:
                self._act(alarm)

    def _result(self, alarm: Any, number: int) -> float | None:
        """Return the result of an alarm's metric math for one period."""
        values: dict[str, float | None] = {}
        for query in alarm.metric_data_queries:
            if query.metric_stat:
                stat, metric = query.metric_stat, query.metric_stat.metric
                percentile = stat.stat if stat.stat.startswith("p") else None
                values[query.id] = self._point(
                    SimpleNamespace(namespace=metric.namespace, metric_name=metric.metric_name, dimensions=metric.dimensions,
                                    period=stat.period, statistic=stat.stat, extended_statistic=percentile), number)  # fmt: skip
        wanted = next(query for query in alarm.metric_data_queries if query.expression)
        return computed(wanted.expression, values)

    def _point(self, alarm: Any, number: int) -> float | None:
        """Return the statistic of one period, the latest first."""
        length = timedelta(seconds=self.world.real(float(alarm.period)))
        # AWS's own metrics are there for every period: one that this loop comes late to is not missing
        last = self.published_at if alarm.namespace.startswith("AWS/") else None
        end = (last or datetime.now(UTC)) - number * length
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


def computed(expression: str, values: Mapping[str, float | None]) -> float | None:
    """Return the value of metric math: numbers, names, + - * /, comparisons, FILL and IF; None where data is missing."""

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Constant(value=int() | float() as number):
                return float(number)
            case ast.Name(id=name):
                return values[name]
            case ast.Call(func=ast.Name(id="FILL"), args=[metric, filling]):
                found = value(metric)
                return value(filling) if found is None else found
            case ast.Call(func=ast.Name(id="IF"), args=[condition, yes, no]):
                holds = value(condition)
                return None if holds is None else value(yes if holds else no)
            case ast.BinOp(left=left, op=kind, right=right) | ast.Compare(left=left, ops=[kind], comparators=[right]):
                both = value(left), value(right)
                with contextlib.suppress(ZeroDivisionError):
                    return None if None in both else MATHS[type(kind)](*both)
                return None
        raise ValueError(f"the rehearsal does not know this metric math: {expression}")

    result = value(ast.parse(expression, mode="eval").body)
    return None if result is None else float(result)


def from_logs(filters: list[dict[str, Any]], message: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the metrics that a log event makes, with their namespaces: of metric filters, and of the embedded metric format."""
    with contextlib.suppress(
        ValueError, TypeError, KeyError, AttributeError
    ):  # not JSON, or of another form: no metric
        line = json.loads(message)
        for one in filters:
            if any(str(line.get(name, "")) == wanted for name, wanted in TERM.findall(one["filterPattern"])):
                for made in one["metricTransformations"]:
                    where = [
                        {"Name": key, "Value": str(line.get(path.removeprefix("$."), ""))}
                        for key, path in made.get("dimensions", {}).items()
                    ]
                    datum = {"MetricName": made["metricName"], "Value": float(made["metricValue"]), "Dimensions": where}
                    yield made["metricNamespace"], datum
        for told in line.get("_aws", {}).get("CloudWatchMetrics", []):
            for names in told["Dimensions"]:
                where = [{"Name": key, "Value": str(line[key])} for key in names]
                for metric in (m["Name"] for m in told["Metrics"] if m["Name"] in line):
                    yield told["Namespace"], {"MetricName": metric, "Value": float(line[metric]), "Dimensions": where}


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
