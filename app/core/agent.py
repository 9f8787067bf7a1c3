"""What a host tells CloudWatch, from the manifests: the agent's JSON, what it scrapes, and what is prepared for it on the host.

The agent reads files and scrapes one address. What apps write into the journal, and what they count, the service ``pergola-feed`` gives
it in that form: a log file for each app, and gauges with the names and dimensions of docs/MONITORING.md. The agent could read the
journal itself, but wraps each line into the journal's fields, keeps no place in it across a restart, and drops histograms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

KINDS = ("amazon", "stand-in", "none")
LOGS = "/var/log/pergola"
CONFIG = "/etc/pergola/agent.json"
PROMETHEUS = "/etc/pergola/prometheus.json"  # JSON is YAML
PORT = 9464  # of the gauges, on loopback
SECONDS = 60
STREAM = "{instance_id}"
JSON_TIME, NGINX_TIME = "%Y-%m-%dT%H:%M:%S.%fZ", "%Y-%m-%dT%H:%M:%S%z"
HOST_METRICS = {"cpu": "cpu_usage_active", "mem": "mem_used_percent", "disk": "disk_used_percent"}
SESSIONS, RESTARTS, CERTIFICATE = "LiveSessions", "ServiceRestarts", "CertificateDays"


def build(
    apps: Sequence[dict[str, Any]],
    *,
    project: str,
    environment: str,
    region: str,
    fleet: str = "main",
    balanced: bool = False,
    kind: str = "amazon",
) -> dict[str, Any]:
    """Derive what a host tells.

    Args:
        apps: The apps of the host's plan (``app.core.plan``).
        project: Name of the project.
        environment: Name of the environment; together they are the namespace of metrics and the folder of log groups.
        region: AWS region.
        fleet: The fleet whose metrics the host's are.
        balanced: Whether a balancer has the certificate that visitors see; else the host's own is watched.
        kind: ``amazon``, AWS's agent, or ``stand-in``, which reads the same files where that one cannot be installed.

    Returns:
        ``kind``; ``config``, the agent's JSON; ``prometheus``, what it scrapes; ``feed``, the settings of ``pergola-feed``.
    """
    if kind not in KINDS:
        raise ValueError(f"agent: expected one of {', '.join(KINDS)}, got {kind!r}")
    folder, namespace = f"/{project}/{environment}", f"{project}-{environment}"
    told = {
        app["name"]: sorted({*wanted(app["manifest"]), *([SESSIONS] if "ui" in app["kinds"] else [])}) for app in apps
    }
    files = [
        _file(f"{LOGS}/host.log", f"{folder}/host", "system", JSON_TIME),
        _file("/var/log/nginx/access.log", f"{folder}/host", "nginx", NGINX_TIME),
        _file("/var/log/nginx/error.log", f"{folder}/host", "nginx-errors", "%Y/%m/%d %H:%M:%S"),
        *(_file(f"{LOGS}/{app['name']}.log", f"{folder}/{app['name']}", "app", JSON_TIME) for app in apps),
    ]
    config = {
        "agent": {"metrics_collection_interval": SECONDS, "region": region, "run_as_user": "cwagent"},
        "metrics": {
            "namespace": namespace,
            "aggregation_dimensions": [["Fleet"]],
            "metrics_collected": {
                name: {
                    "measurement": [metric],
                    "append_dimensions": {"Fleet": fleet},
                    "drop_original_metrics": [metric],  # only the fleet's: each metric costs
                    **({"totalcpu": True} if name == "cpu" else {}),
                    **({"resources": ["/", "/var/lib/pergola"], "drop_device": True} if name == "disk" else {}),
                }
                for name, metric in HOST_METRICS.items()
            },
        },
        "logs": {
            "force_flush_interval": 5,
            "logs_collected": {"files": {"collect_list": files}},
            "metrics_collected": {
                "prometheus": {
                    "log_group_name": f"{folder}/host",
                    "prometheus_config_path": PROMETHEUS,
                    "emf_processor": {
                        "metric_namespace": namespace,
                        "metric_declaration_dedup": True,
                        "metric_declaration": [
                            *(_declared("App", name, names) for name, names in told.items() if names),
                            _declared("Fleet", fleet, [RESTARTS if balanced else CERTIFICATE]),
                        ],
                    },
                }
            },
        },
    }  # fmt: skip
    return {
        "kind": kind,
        "config": config,
        "prometheus": {
            "global": {"scrape_interval": f"{SECONDS}s", "scrape_timeout": "10s"},
            "scrape_configs": [
                {"job_name": "pergola", "static_configs": [{"targets": [f"127.0.0.1:{PORT}"]}]},
            ],
        },
        "feed": {
            "port": PORT,
            "logs": LOGS,
            "fleet": fleet,
            "certificate": "" if balanced else "127.0.0.1:443",
            "apps": {app["name"]: _app(app) for app in apps},
        },
    }


def wanted(data: dict[str, Any]) -> dict[str, int]:
    """Return the app's own metrics that its manifest names, each with the seconds that one value is about."""
    return {
        **dict.fromkeys(data["metrics"], SECONDS),
        **{entry["metric"]: entry["seconds"] for entry in data["alarms"]},
    }


def _file(path: str, group: str, stream: str, time: str) -> dict[str, Any]:
    return {
        "file_path": path,
        "log_group_name": group,
        "log_stream_name": f"{STREAM}/{stream}",
        "timestamp_format": time,
        "timezone": "UTC",
    }


def _declared(label: str, value: str, names: Sequence[str]) -> dict[str, Any]:
    """Return which gauges become metrics, with their dimension."""
    return {
        "source_labels": [label],
        "label_matcher": f"^{re.escape(value)}$",
        "dimensions": [[label]],
        "metric_selectors": [f"^{re.escape(name)}$" for name in names],
    }


def _app(app: dict[str, Any]) -> dict[str, Any]:
    """Return where the feed finds an app's lines and numbers."""
    kinds = [*app["kinds"], "prepare"]
    return {
        "identifiers": [f"pergola-{kind}-{app['name']}-{slot}" for kind in kinds for slot in app["slots"]],
        "metrics": wanted(app["manifest"]) if "api" in app["kinds"] else {},
        "api": app["routes"]["api"],
        "screens": [app["routes"][f"ui_{slot}"] for slot in app["slots"]] if "ui" in app["kinds"] else [],
        "sessions": f"{app['path']}_stcore/metrics?families=active_sessions",
    }
