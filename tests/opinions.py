"""What parliament and cloudsplaining say of an IAM policy: two programs that know AWS and not us."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from typing import Any

from cloudsplaining.scan.policy_document import PolicyDocument

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports pkg_resources, which says that it is old
    import parliament

# Actions that AWS's reference knows no resource for but *; each is harmless on everything, or bound by a condition.
WITHOUT_RESOURCE = {
    "cloudwatch:PutMetricData",  # bound to our namespace
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}


def opinions(policy: dict[str, Any]) -> list[str]:
    """Return everything that either of them finds."""
    found = [
        f"parliament: {each.issue} {each.detail}"
        for each in parliament.analyze_policy_string(json.dumps(policy)).findings
    ]
    document = PolicyDocument(policy)
    for kind in (
        "all_allowed_unrestricted_actions",
        "allows_data_exfiltration_actions",
        "allows_privilege_escalation",
        "credentials_exposure",
        "infrastructure_modification",
        "permissions_management_without_constraints",
        "service_wildcard",
        "tagging_actions_without_constraints",
        "write_actions_without_constraints",
    ):
        left = [
            each for each in getattr(document, kind) if str(each).lower() not in {a.lower() for a in WITHOUT_RESOURCE}
        ]
        found += [f"cloudsplaining: {kind} {each}" for each in left]
    return found


def policies(data: Any) -> Iterator[dict[str, Any]]:
    """Yield each policy for an identity in plain data: a document whose statements have no principal."""
    if isinstance(data, dict):
        statements = data.get("Statement")
        if isinstance(statements, list):
            if not any("Principal" in each for each in statements):
                yield data
        else:
            for value in data.values():
                yield from policies(value)
    elif isinstance(data, list):
        for value in data:
            yield from policies(value)
