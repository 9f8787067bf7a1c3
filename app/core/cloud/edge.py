"""CloudFront, WAF and CloudTrail of the cloud plan; each of them optional."""

from __future__ import annotations

from typing import Any

from app.core.cloud.site import Site

# AWS's own rule groups, in the order in which they look, with the rules of each that would refuse what the apps are for
MANAGED: dict[str, tuple[str, ...]] = {
    "AWSManagedRulesAmazonIpReputationList": (),
    "AWSManagedRulesKnownBadInputsRuleSet": (),
    # uploads are larger than 8 KB, and an image's bytes may look like a script: only the body's rules are left out
    "AWSManagedRulesCommonRuleSet": ("SizeRestrictions_BODY", "CrossSiteScripting_BODY"),
}
REQUESTS_IN_FIVE_MINUTES = 5000  # of one address


def section(site: Site) -> dict[str, Any]:
    """Return the variables of the role ``aws_edge``."""
    settings = site.settings["edge"]
    return {
        **{key: settings[key] for key in ("cdn", "firewall", "trail")},
        "name": site.prefix,
        "balancer": site.name(limit=32) if site.balanced else "",
        "origin": site.settings["domain"].get("name", ""),
        "rules": rules(site) if settings["firewall"] else [],
        "log_bucket": site.bucket("logs"),
        "tags": site.tags(),
    }


def rules(site: Site) -> list[dict[str, Any]]:
    """Return the firewall's rules as M(community.aws.wafv2_web_acl) takes them."""
    managed = [
        {
            "name": name,
            "priority": priority,
            "override_action": {"none": {}},
            "visibility_config": _visible(site, name),
            "statement": {
                "managed_rule_group_statement": {
                    "vendor_name": "AWS",
                    "name": name,
                    **({"excluded_rules": [{"name": rule} for rule in excluded]} if excluded else {}),
                }
            },
        }
        for priority, (name, excluded) in enumerate(MANAGED.items(), 1)
    ]
    rate = {
        "name": "rate",
        "priority": len(managed) + 1,
        "action": {"block": {}},
        "visibility_config": _visible(site, "rate"),
        "statement": {
            "rate_based_statement": {
                "limit": REQUESTS_IN_FIVE_MINUTES,
                "evaluation_window_sec": 300,
                "aggregate_key_type": "IP",
            }
        },
    }
    return [*managed, rate]


def _visible(site: Site, name: str) -> dict[str, Any]:
    return {
        "sampled_requests_enabled": True,
        "cloud_watch_metrics_enabled": True,
        "metric_name": f"{site.prefix}-{name}",
    }
