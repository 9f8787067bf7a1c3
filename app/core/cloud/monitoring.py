"""What an environment watches: log groups, counts of errors, alarms and the dashboard, derived from the manifests.

What AWS names only when it is made (a balancer, a target group, a certificate, a topic) stands here as ``@balancer``,
``@main-blue``, ``@certificate``; ``resolve`` puts the real names in. Metrics of our own are in the namespace ``site.prefix``;
docs/MONITORING.md lists them with the dimensions that their senders use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.cloud import backup
from app.core.cloud.site import COLOURS, Site
from app.core.manifest import Manifest

LEVELS = ("urgent", "notice")
"""Topics: *urgent* wakes somebody, *notice* is read in working hours."""

HOST_LOG = "host"
QUERIES = Path(__file__).resolve().parents[3] / "files" / "queries"
ERROR_PATTERN = '{ ($.level = "error") || ($.level = "critical") }'
SESSIONS = 300  # of one app with a screen, more than which is news
ABOVE, BELOW = "GreaterThanThreshold", "LessThanThreshold"
Alarm = dict[str, Any]


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_monitoring``; alarms are arguments of PutMetricAlarm, their actions names of levels."""
    alarms = list(alarms_of(site))
    parts = [(HOST_LOG, "shared"), *((manifest.name, manifest.name) for manifest in site.manifests)]
    return {
        "namespace": site.prefix,
        "days": site.settings["logs"]["days"],
        "log_groups": [
            {"name": site.log_group(part), "days": site.settings["logs"]["days"], "tags": site.tags(app)}
            for part, app in parts
        ],
        "filters": [
            {
                "log_group": site.log_group(manifest.name),
                "name": "errors",
                "pattern": ERROR_PATTERN,
                "metric": "LogErrors",
                "namespace": site.prefix,
                "dimensions": {"App": "$.app"},
            }
            for manifest in site.manifests
        ],
        "topics": {level: site.name(level) for level in LEVELS},
        "notify": site.settings["logs"]["notify"],
        "balancer": site.name(limit=32) if site.balanced else "",
        "target_groups": {
            f"{fleet}-{colour}": site.name(fleet, colour, limit=32)
            for fleet, groups in _fleets(site)
            for colour in COLOURS[: len(groups)]
        },
        "alarm_prefix": f"{site.prefix}-",
        "alarms": alarms,
        "query_prefix": f"{site.prefix}/",
        "queries": queries(site),
        "metrics": [[manifest.name, name] for manifest in site.manifests for name in _unalarmed(manifest)],
        "dashboard_name": site.prefix,
        "dashboard": _dashboard(site, alarms),
        "tags": site.tags(),
    }


def queries(site: Site) -> list[dict[str, Any]]:
    """Return the saved queries of logs: each file says on its first line what it is for, on its second whose logs it asks."""
    groups = {
        "apps": [site.log_group(manifest.name) for manifest in site.manifests],
        "host": [site.log_group(HOST_LOG)],
    }
    found = []
    for path in sorted(QUERIES.glob("*.txt")):
        text = path.read_text(encoding="utf-8")
        asked = text.splitlines()[1].removeprefix("# logs: ").split(", ")
        names = [name for part in asked for name in groups[part]]
        found.append({"name": f"{site.prefix}/{path.stem}", "query": text, "log_groups": names})
    return found


def with_names(data: Any, names: Mapping[str, str]) -> Any:
    """Return ``data`` with the real name for each text ``@<key>`` of ``names``; what is not known yet stays as it is."""
    if isinstance(data, str):
        return names.get(data[1:], data) if data.startswith("@") else data
    if isinstance(data, Mapping):
        return {key: with_names(value, names) for key, value in data.items()}
    return [with_names(value, names) for value in data] if isinstance(data, list | tuple) else data


def topic(site: Site, level: str) -> str:
    """Return the ARN of a level's topic."""
    return site.arn("sns", site.name(level))


def _fleets(site: Site) -> list[tuple[str, list[str]]]:
    """Return each fleet's name and its scaling groups; a single host has none."""
    colours = COLOURS if site.balanced else ()
    return [(row["name"], [site.name(row["name"], colour) for colour in colours]) for row in site.settings["fleets"]]


def _alarm(
    site: Site,
    name: str,
    level: str,
    text: str,
    comparison: str,
    threshold: float,
    *,
    periods: int = 1,
    missing: str = "notBreaching",
    **source: Any,
) -> Alarm:
    """Return one alarm. Missing data that is neither good nor bad is told to ``notice`` once, when it begins."""
    return {
        "AlarmName": f"{site.prefix}-{name}",
        "AlarmDescription": text,
        "ComparisonOperator": comparison,
        "Threshold": threshold,
        "EvaluationPeriods": periods,
        "DatapointsToAlarm": periods,
        "TreatMissingData": missing,
        "AlarmActions": [topic(site, level)],
        "OKActions": [topic(site, level)],
        "InsufficientDataActions": [topic(site, "notice")] if missing == "missing" else [],
        **source,
    }


def _metric(namespace: str, name: str, dimensions: Mapping[str, str], period: int, statistic: str) -> dict[str, Any]:
    return {
        "Namespace": namespace,
        "MetricName": name,
        "Dimensions": [{"Name": key, "Value": value} for key, value in sorted(dimensions.items())],
        "Period": period,
        "Statistic": statistic,
    }


def _query(identity: str, metric: Mapping[str, Any]) -> dict[str, Any]:
    stat = {
        "Metric": {key: metric[key] for key in ("Namespace", "MetricName", "Dimensions")},
        "Period": metric["Period"],
        "Stat": metric["Statistic"],
    }
    return {"Id": identity, "MetricStat": stat, "ReturnData": False}


def _maths(expression: str, label: str, **metrics: Mapping[str, Any]) -> dict[str, Any]:
    result = {"Id": "result", "Expression": expression, "Label": label, "ReturnData": True}
    return {"Metrics": [*(_query(identity, metric) for identity, metric in sorted(metrics.items())), result]}


def alarms_of(site: Site) -> Iterable[Alarm]:
    """Give every alarm of the environment, as PutMetricAlarm takes it."""
    if site.balanced:
        yield from _balancer_alarms(site)
    for fleet, groups in _fleets(site):
        yield from _fleet_alarms(site, fleet, groups)
    for manifest in site.manifests:
        yield from _app_alarms(site, manifest)
    database = site.settings["database"]
    if database["enabled"]:
        where = {"DBInstanceIdentifier": site.name("db", limit=63)}
        free = _metric("AWS/RDS", "FreeStorageSpace", where, 300, "Minimum")
        text = "The database has less than a tenth of its storage left; it stops accepting writes when it is full."
        yield _alarm(
            site, "database-storage", "urgent", text, BELOW, database["storage_gb"] * 2**30 // 10, periods=2, **free
        )


def _balancer_alarms(site: Site) -> Iterable[Alarm]:
    front, name = {"LoadBalancer": "@balancer"}, "AWS/ApplicationELB"
    for fleet, _ in _fleets(site):
        healthy = {
            colour: _metric(name, "HealthyHostCount", {**front, "TargetGroup": f"@{fleet}-{colour}"}, 60, "Minimum")
            for colour in COLOURS
        }
        text = f"No host of {fleet} is healthy, in either colour: visitors see errors. Look at a host, or roll back."
        maths = _maths("FILL(blue, 0) + FILL(green, 0)", "Healthy hosts", **healthy)
        yield _alarm(site, f"{fleet}-healthy", "urgent", text, BELOW, 1, missing="breaching", **maths)
    text = "Requests take longer than 5 seconds on average."
    slow = _metric(name, "TargetResponseTime", front, 60, "Average")
    yield _alarm(site, "response-time", "urgent", text, ABOVE, 5, periods=2, **slow)
    text = "More than one request in a hundred fails, in the apps or before them."
    counts = {
        identity: _metric(name, metric, front, 60, "Sum")
        for identity, metric in (
            ("all", "RequestCount"),
            ("apps", "HTTPCode_Target_5XX_Count"),
            ("front", "HTTPCode_ELB_5XX_Count"),
        )
    }
    share = _maths("IF(all > 0, 100 * (FILL(apps, 0) + FILL(front, 0)) / all, 0)", "Failed, percent", **counts)
    yield _alarm(site, "failed-requests", "urgent", text, ABOVE, 1, periods=2, **share)
    text = (
        "The balancer's certificate ends in less than 21 days: it was not renewed. Look at its DNS validation record."
    )
    days = _metric("AWS/CertificateManager", "DaysToExpiry", {"CertificateArn": "@certificate"}, 86400, "Minimum")
    yield _alarm(site, "certificate", "notice", text, BELOW, 21, missing="missing", **days)


def _fleet_alarms(site: Site, fleet: str, groups: Sequence[str]) -> Iterable[Alarm]:
    for group in groups:
        text = f"{group} has worked at more than 80 % for ten minutes: it is at its largest, or scales too late."
        load = _metric("AWS/EC2", "CPUUtilization", {"AutoScalingGroupName": group}, 300, "Average")
        yield _alarm(site, f"{group.removeprefix(site.prefix + '-')}-cpu", "notice", text, ABOVE, 80, periods=2, **load)
    host = {"Fleet": fleet}
    if not groups:
        text = f"{fleet} has worked at more than 80 % for ten minutes. Give it a larger instance type."
        load = _metric(site.prefix, "cpu_usage_active", host, 300, "Average")
        yield _alarm(site, f"{fleet}-cpu", "notice", text, ABOVE, 80, periods=2, missing="missing", **load)
    text = f"A host of {fleet} uses more than 85 % of its memory; an app will be ended soon."
    memory = _metric(site.prefix, "mem_used_percent", host, 300, "Maximum")
    yield _alarm(site, f"{fleet}-memory", "notice", text, ABOVE, 85, periods=2, missing="missing", **memory)
    text = f"A disk of {fleet} is more than 80 % full. Old releases and logs are what grows."
    disk = _metric(site.prefix, "disk_used_percent", host, 300, "Maximum")
    yield _alarm(site, f"{fleet}-disk", "notice", text, ABOVE, 80, missing="missing", **disk)
    if site.balanced:  # a single host tells no metrics of its own accord: each costs
        text = f"The clock of a host of {fleet} is more than 30 seconds wrong; from 15 minutes on AWS refuses what it asks."
        clock = _metric(site.prefix, "ClockOffset", host, 300, "Maximum")
        yield _alarm(site, f"{fleet}-clock", "notice", text, ABOVE, 30, missing="missing", **clock)
        text = f"A service on a host of {fleet} ended by itself within five minutes: it crashed, or outgrew its memory."
        restarts = _metric(site.prefix, "ServiceRestarts", host, 60, "Maximum")
        yield _alarm(site, f"{fleet}-restarts", "notice", text, ABOVE, 0, **restarts)
    else:
        text = f"The certificate of {fleet} ends in less than 21 days: it was not renewed."
        days = _metric(site.prefix, "CertificateDays", host, 3600, "Minimum")
        yield _alarm(site, f"{fleet}-certificate", "notice", text, BELOW, 21, missing="missing", **days)


def _app_alarms(site: Site, manifest: Manifest) -> Iterable[Alarm]:
    name, data = manifest.name, manifest.data
    app = {"App": name}
    text = f"{data['title']} wrote more than 5 errors into its log within five minutes."
    errors = _metric(site.prefix, "LogErrors", app, 300, "Sum")
    yield _alarm(site, f"{name}-errors", "notice", text, ABOVE, 5, **errors)
    for entry in data["alarms"]:
        text = f"{data['title']}: {entry['metric']} stays above {entry['above']:g}."
        own = _metric(site.prefix, entry["metric"], app, entry["seconds"], "Average")
        short = _dashes(entry["metric"])
        yield _alarm(site, f"{name}-{short}", "notice", text, ABOVE, entry["above"], periods=entry["periods"], **own)
    for what, hours in _backups(site, manifest).items():
        where = {**app, "What": what}
        text = f"The last good backup of {data['title']}'s {what} is older than twice its period ({hours:g} hours)."
        age = _metric(site.prefix, "BackupAgeHours", where, 300, "Maximum")
        yield _alarm(site, f"{name}-backup-{what}", "urgent", text, ABOVE, hours, missing="missing", **age)
        text = f"The backup of {data['title']}'s {what} shrank to less than half within a day; look whether something was lost."
        shrunk = _metric(site.prefix, "BackupShrunk", where, 300, "Maximum")
        yield _alarm(site, f"{name}-backup-{what}-shrunk", "urgent", text, ABOVE, 0, **shrunk)
    if "ui" in data:
        text = f"{data['title']} has more than {SESSIONS} live sessions: more visitors than it was made for, or sessions that never end."
        live = _metric(site.prefix, "LiveSessions", app, 300, "Maximum")
        yield _alarm(site, f"{name}-sessions", "notice", text, ABOVE, SESSIONS, periods=2, **live)


def _backups(site: Site, manifest: Manifest) -> dict[str, float]:
    """Return what hosts back up of an app, with the hours after which a backup is too old; of the rest nobody sends a metric."""
    return {
        job["what"]: job["too_old_hours"]
        for job in sorted(backup.jobs(site, manifest), key=lambda job: str(job["what"]))
    }


def _dashes(name: str) -> str:
    """Return ``PredictionLatency`` as ``prediction-latency``."""
    return "".join(
        f"-{letter.lower()}" if letter.isupper() and number else letter.lower() for number, letter in enumerate(name)
    )


def _dashboard(site: Site, alarms: Sequence[Alarm]) -> dict[str, Any]:
    """Return the dashboard's body: open alarms, then visitors, then hosts, then a row for each app."""
    arns = [site.arn("cloudwatch", f"alarm:{alarm['AlarmName']}") for alarm in alarms]
    widgets: list[dict[str, Any]] = [
        {"type": "alarm", "width": 24, "height": 4, "properties": {"title": "Alarms", "alarms": arns}},
    ]
    front = ["LoadBalancer", "@balancer"]
    elb = "AWS/ApplicationELB"
    if site.balanced:
        widgets += [
            _graph("Requests a minute", [[elb, "RequestCount", *front, {"stat": "Sum"}]]),
            _graph(
                "Failed requests",
                [
                    [elb, "HTTPCode_Target_5XX_Count", *front, {"stat": "Sum", "label": "apps"}],
                    [elb, "HTTPCode_ELB_5XX_Count", *front, {"stat": "Sum", "label": "balancer"}],
                ],
            ),
            _graph(
                "Seconds a request",
                [[elb, "TargetResponseTime", *front, {"stat": stat}] for stat in ("p50", "p95", "p99")],
            ),
            _graph(
                "Healthy hosts",
                [
                    [
                        elb,
                        "HealthyHostCount",
                        "TargetGroup",
                        f"@{fleet}-{c}",
                        *front,
                        {"stat": "Minimum", "label": f"{fleet} {c}"},
                    ]
                    for fleet, _ in _fleets(site)
                    for c in COLOURS
                ],
            ),
        ]
    for fleet, groups in _fleets(site):
        own = [[site.prefix, metric, "Fleet", fleet] for metric in ("mem_used_percent", "disk_used_percent")]
        load = [["AWS/EC2", "CPUUtilization", "AutoScalingGroupName", group] for group in groups]
        widgets.append(_graph(f"{fleet}: processor", load or [[site.prefix, "cpu_usage_active", "Fleet", fleet]]))
        widgets.append(_graph(f"{fleet}: memory and disk", [[*line, {"stat": "Maximum"}] for line in own]))
    if site.settings["database"]["enabled"]:
        where = ["DBInstanceIdentifier", site.name("db", limit=63)]
        names = ("CPUUtilization", "DatabaseConnections", "FreeStorageSpace")
        widgets += [_graph(f"Database: {name}", [["AWS/RDS", name, *where]]) for name in names]
    for manifest in site.manifests:
        widgets += _app_widgets(site, manifest)
    for widget in widgets:
        if widget["type"] == "metric":
            widget["properties"]["region"] = site.region
    return {"widgets": _placed(widgets)}


def _unalarmed(manifest: Manifest) -> list[str]:
    """Return the app's own metrics that are kept without an alarm."""
    alarmed = {entry["metric"] for entry in manifest.data["alarms"]}
    return [name for name in manifest.data["metrics"] if name not in alarmed]


def _app_widgets(site: Site, manifest: Manifest) -> Iterable[dict[str, Any]]:
    title, where = manifest.data["title"], ["App", manifest.name]
    yield _graph(f"{title}: errors in the log", [[site.prefix, "LogErrors", *where, {"stat": "Sum"}]])
    for entry in manifest.data["alarms"]:
        line = [site.prefix, entry["metric"], *where]
        limit = {"horizontal": [{"label": "alarm", "value": entry["above"]}]}
        yield _graph(
            f"{title}: {entry['metric']}", [[*line, {"stat": stat}] for stat in ("Average", "p99")], annotations=limit
        )
    for name in _unalarmed(manifest):
        yield _graph(f"{title}: {name}", [[site.prefix, name, *where, {"stat": "Sum"}]])
    if "ui" in manifest.data:
        yield _graph(f"{title}: live sessions", [[site.prefix, "LiveSessions", *where, {"stat": "Maximum"}]])
    for what in _backups(site, manifest):
        line = [site.prefix, "BackupAgeHours", *where, "What", what, {"stat": "Maximum"}]
        yield _graph(f"{title}: hours since the backup of its {what}", [line])


def _graph(title: str, metrics: list[list[Any]], **properties: Any) -> dict[str, Any]:
    shown = {"title": title, "view": "timeSeries", "period": 60, "metrics": metrics, **properties}
    return {"type": "metric", "width": 6, "height": 5, "properties": shown}


def _placed(widgets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Put the widgets into rows of 24 columns, in order."""
    x = y = height = 0
    for widget in widgets:
        if x + widget["width"] > 24:
            x, y, height = 0, y + height, 0
        widget.update(x=x, y=y)
        x, height = x + widget["width"], max(height, widget["height"])
    return widgets
