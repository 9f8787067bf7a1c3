"""Filters that lead from manifests and an inventory to the plans of a host and of the cloud."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

_ROOT = Path(__file__).resolve().parents[2]
if str(_ROOT) not in sys.path:
    sys.path.insert(0, str(_ROOT))

from app.core import cloud, manifest, plan, prices  # noqa: E402 - the project's folder must be on the path first
from app.core.cloud import monitoring  # noqa: E402


def pergola_plan(apps: Sequence[str | Mapping[str, str]], **site: Any) -> dict[str, Any]:
    """Load the manifests of ``apps`` and derive the host's plan; wrong manifests fail with every finding."""
    try:
        return plan.build(manifest.load_all(_ROOT, apps), **site)
    except (manifest.ManifestError, plan.PlanError) as error:
        raise AnsibleFilterError(f"\n{error}") from error


def pergola_cloud(settings: Mapping[str, Any], apps: Sequence[str | Mapping[str, str]], **site: Any) -> dict[str, Any]:
    """Derive the cloud plan from an inventory's ``pergola_cloud`` and ``apps``; wrong ones fail with every finding."""
    try:
        return cloud.build(settings, manifest.load_all(_ROOT, apps), **site)
    except (manifest.ManifestError, cloud.CloudError) as error:
        raise AnsibleFilterError(f"\n{error}") from error


def pergola_names(data: Any, names: Mapping[str, str]) -> Any:
    """Put the real name for each text ``@<key>`` into ``data``; what has no name yet stays as it is."""
    return monitoring.with_names(data, {key: name for key, name in names.items() if name})


def pergola_cost(built: Mapping[str, Any]) -> dict[str, Any]:
    """Estimate what a cloud plan costs: ``lines``, ``usd`` a month, and both as a table in ``text``."""
    try:
        lines = prices.monthly(built)
    except prices.PriceError as error:
        raise AnsibleFilterError(str(error)) from error
    return {
        "lines": [line.as_dict() for line in lines],
        "usd": float(prices.total(lines)),
        "text": prices.text(lines, prices.table(), budget=built["budget"]["usd"]),
    }


class FilterModule:
    """Filters of Pergola."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name."""
        return {
            "pergola_cloud": pergola_cloud,
            "pergola_cost": pergola_cost,
            "pergola_names": pergola_names,
            "pergola_plan": pergola_plan,
        }
