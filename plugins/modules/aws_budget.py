#!/usr/bin/python
"""Ansible module for an AWS budget with notices by mail."""

DOCUMENTATION = r"""
---
module: aws_budget
short_description: A monthly cost budget with notices
description:
  - Makes a monthly cost budget and exactly the notices given, or removes it. No collection has a module for budgets.
options:
  name:
    description: Name of the budget.
    type: str
    required: true
  usd:
    description: The limit a month. Required when it is to be there.
    type: float
  tag:
    description:
      - Count only what carries this tag, as C(key$value) with C(user:) before it. Everything of the account when empty.
      - The tag must have been activated as a cost allocation tag, else the budget sees nothing.
    type: str
    default: ""
  notices:
    description: Who is told, and when.
    type: list
    elements: dict
    default: []
    suboptions:
      type:
        description: Of what has been spent, or of what the month will come to.
        type: str
        choices: [ACTUAL, FORECASTED]
        required: true
      percent:
        description: Of the limit.
        type: int
        required: true
      emails:
        description: Addresses, at most 10.
        type: list
        elements: str
        required: true
  tags:
    description: Tags of a budget that is made.
    type: dict
    default: {}
  state:
    description: Whether it is there.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: [Pergola contributors]
"""

EXAMPLES = r"""
- name: We hear of it before 40 USD are spent
  aws_budget:
    name: pergola-demo
    usd: 40
    notices:
      - { type: ACTUAL, percent: 80, emails: [ops@example.org] }
      - { type: FORECASTED, percent: 100, emails: [ops@example.org] }
"""

RETURN = r"""
name:
  description: Name of the budget.
  returned: success
  type: str
"""

from decimal import Decimal  # noqa: E402 - Ansible wants the documentation first
from typing import Any  # noqa: E402

from ansible_collections.amazon.aws.plugins.module_utils.botocore import is_boto3_error_code  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry  # noqa: E402
from botocore.exceptions import BotoCoreError, ClientError  # noqa: E402

REGION = "us-east-1"  # the service has one endpoint
Notice = tuple[str, int]


class Budget:
    """One budget of the account."""

    def __init__(self, client: Any, account: str, name: str) -> None:
        self.client = client
        self.key = {"AccountId": account, "BudgetName": name}

    def current(self) -> dict[str, Any] | None:
        """Return the limit, the tag and the notices, in the form of ``wanted``; None when there is no such budget."""
        try:
            found = self.client.describe_budget(aws_retry=True, **self.key)["Budget"]
        except is_boto3_error_code("NotFoundException"):
            return None
        answer = self.client.describe_notifications_for_budget(aws_retry=True, **self.key)
        notices = {}
        for notice in answer.get("Notifications") or []:
            # the service fills in what was left out; asked back it wants the same notice
            who = self.client.describe_subscribers_for_notification(
                aws_retry=True, **self.key, Notification=told(notice)
            )
            emails = sorted(each["Address"] for each in who["Subscribers"] if each["SubscriptionType"] == "EMAIL")
            notices[f"{notice['NotificationType']} {int(notice['Threshold'])} %"] = emails
        filters = found.get("CostFilters") or {}
        return {
            "usd": str(Decimal(found["BudgetLimit"]["Amount"]).quantize(Decimal("0.01"))),
            "tag": (filters.get("TagKeyValue") or [""])[0],
            "notices": notices,
        }

    def make(self, want: dict[str, Any], tags: dict[str, str]) -> None:
        """Create the budget, with its notices."""
        notices = [
            {"Notification": notification(name), "Subscribers": subscribers(emails)}
            for name, emails in want["notices"].items()
        ]
        resource_tags = [{"Key": key, "Value": str(value)} for key, value in sorted(tags.items())]
        arguments: dict[str, Any] = {"ResourceTags": resource_tags} if resource_tags else {}
        self.client.create_budget(
            aws_retry=True,
            AccountId=self.key["AccountId"],
            Budget=self._body(want),
            NotificationsWithSubscribers=notices,
            **arguments,
        )

    def change(self, have: dict[str, Any], want: dict[str, Any]) -> None:
        """Bring an existing budget from ``have`` to ``want``."""
        if (have["usd"], have["tag"]) != (want["usd"], want["tag"]):
            self.client.update_budget(aws_retry=True, AccountId=self.key["AccountId"], NewBudget=self._body(want))
        before, after = have["notices"], want["notices"]
        for name in sorted(before):
            if after.get(name) != before[name]:
                self.client.delete_notification(aws_retry=True, **self.key, Notification=notification(name))
        for name in sorted(after):
            if after[name] != before.get(name):
                self.client.create_notification(
                    aws_retry=True, **self.key, Notification=notification(name), Subscribers=subscribers(after[name])
                )

    def remove(self) -> None:
        """Delete the budget."""
        self.client.delete_budget(aws_retry=True, **self.key)

    def _body(self, want: dict[str, Any]) -> dict[str, Any]:
        return {
            "BudgetName": self.key["BudgetName"],
            "BudgetType": "COST",
            "TimeUnit": "MONTHLY",
            "BudgetLimit": {"Amount": want["usd"], "Unit": "USD"},
            **({"CostFilters": {"TagKeyValue": [want["tag"]]}} if want["tag"] else {}),
        }


def told(notice: dict[str, Any]) -> dict[str, Any]:
    """Return a notice of the service as a key for further questions."""
    return {
        key: notice[key]
        for key in ("NotificationType", "ComparisonOperator", "Threshold", "ThresholdType")
        if key in notice
    }


def notification(name: str) -> dict[str, Any]:
    """Return the notice called ``ACTUAL 80 %``."""
    kind, percent, _ = name.split()
    return {
        "NotificationType": kind,
        "ComparisonOperator": "GREATER_THAN",
        "Threshold": float(percent),
        "ThresholdType": "PERCENTAGE",
    }


def subscribers(emails: list[str]) -> list[dict[str, str]]:
    """Return who gets a notice."""
    return [{"SubscriptionType": "EMAIL", "Address": address} for address in emails]


def wanted(params: dict[str, Any]) -> dict[str, Any]:
    """Return the options in the form of ``Budget.current``."""
    return {
        "usd": str(Decimal(str(params["usd"])).quantize(Decimal("0.01"))),
        "tag": params["tag"],
        "notices": {f"{each['type']} {each['percent']} %": sorted(each["emails"]) for each in params["notices"]},
    }


def main() -> None:
    """Make the budget what it should be."""
    module = AnsibleAWSModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "usd": {"type": "float"},
            "tag": {"type": "str", "default": "", "no_log": False},
            "notices": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "type": {"type": "str", "choices": ["ACTUAL", "FORECASTED"], "required": True},
                    "percent": {"type": "int", "required": True},
                    "emails": {"type": "list", "elements": "str", "required": True},
                },
            },
            "tags": {"type": "dict", "default": {}},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["usd"])],
        supports_check_mode=True,
    )
    params = module.params
    want = wanted(params) if params["state"] == "present" else None
    retry = AWSRetry.jittered_backoff()
    try:
        account = module.client("sts", retry_decorator=retry).get_caller_identity(aws_retry=True)["Account"]
        budget = Budget(module.client("budgets", region=REGION, retry_decorator=retry), account, params["name"])
        have = budget.current()
        if have != want and not module.check_mode:
            if want is None:
                budget.remove()
            elif have is None:
                budget.make(want, params["tags"])
            else:
                budget.change(have, want)
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg=f"The budget {params['name']} could not be made what it should be")
    module.exit_json(changed=have != want, name=params["name"], diff={"before": have or {}, "after": want or {}})


if __name__ == "__main__":
    main()
