#!/usr/bin/python
"""Ansible module for all saved queries of CloudWatch Logs Insights of an environment at once."""

DOCUMENTATION = r"""
---
module: log_queries
short_description: The saved queries of an environment, as one set
description:
  - Makes the query definitions of CloudWatch Logs Insights whose names begin with O(prefix) exactly those in O(queries).
  - No module of a collection knows query definitions; one task for each would take a second each.
options:
  prefix:
    description: What the names of all the queries begin with. Ends with a slash, which the console shows as a folder.
    type: str
    required: true
  queries:
    description: The queries. An empty list removes all of them.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Its whole name.
        type: str
        required: true
      query:
        description: Its text.
        type: str
        required: true
      log_groups:
        description: The log groups that the console asks.
        type: list
        elements: str
        required: true
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
- name: Whoever looks for errors finds the query
  log_queries:
    prefix: pergola-staging/
    queries:
      - name: pergola-staging/errors
        query: fields @timestamp, message | filter level = "error"
        log_groups: [/pergola/staging/wine]
"""

RETURN = r"""
created:
  description: Names of the queries that were made.
  returned: success
  type: list
  elements: str
updated:
  description: Names of those that were other than wished.
  returned: success
  type: list
  elements: str
removed:
  description: Names of those that nobody wishes any more.
  returned: success
  type: list
  elements: str
"""

from typing import Any  # noqa: E402 - Ansible wants the documentation first

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry  # noqa: E402
from botocore.exceptions import BotoCoreError, ClientError  # noqa: E402


def existing(client: Any, prefix: str) -> dict[str, dict[str, Any]]:
    """Return the queries of ``prefix`` by name, each with its id."""
    found: dict[str, dict[str, Any]] = {}
    more: dict[str, str] = {}
    while True:
        page = client.describe_query_definitions(aws_retry=True, queryDefinitionNamePrefix=prefix, **more)
        for row in page["queryDefinitions"]:
            about = {
                "name": row["name"],
                "query": row["queryString"],
                "log_groups": sorted(row.get("logGroupNames", [])),
            }
            found[row["name"]] = {**about, "id": row["queryDefinitionId"]}
        if not page.get("nextToken"):
            return found
        more = {"nextToken": page["nextToken"]}


def main() -> None:
    """Make the queries what they should be, and report what changed."""
    suboptions = {
        "name": {"type": "str", "required": True},
        "query": {"type": "str", "required": True},
        "log_groups": {"type": "list", "elements": "str", "required": True},
    }
    module = AnsibleAWSModule(
        argument_spec={
            "prefix": {"type": "str", "required": True},
            "queries": {"type": "list", "elements": "dict", "required": True, "options": suboptions},
        },
        supports_check_mode=True,
    )
    prefix = module.params["prefix"]
    want = {one["name"]: {**one, "log_groups": sorted(one["log_groups"])} for one in module.params["queries"]}
    if not prefix.endswith("/"):
        module.fail_json(msg=f"prefix: expected a name that ends with a slash such as pergola-staging/, got {prefix!r}")
    if strangers := sorted(name for name in want if not name.startswith(prefix)):
        module.fail_json(msg=f"queries: {strangers[0]} does not begin with {prefix}")
    if len(want) != len(module.params["queries"]):
        module.fail_json(msg="queries: two of them have the same name")
    client = module.client("logs", retry_decorator=AWSRetry.jittered_backoff())
    try:
        have = existing(client, prefix)
        ids = {name: {"queryDefinitionId": row.pop("id")} for name, row in have.items()}
        created, removed = sorted(set(want) - set(have)), sorted(set(have) - set(want))
        updated = sorted(name for name in set(want) & set(have) if want[name] != have[name])
        for name in [] if module.check_mode else [*created, *updated]:
            one = want[name]
            client.put_query_definition(
                aws_retry=True,
                name=name,
                queryString=one["query"],
                logGroupNames=one["log_groups"],
                **ids.get(name, {}),
            )
        for name in [] if module.check_mode else removed:
            client.delete_query_definition(aws_retry=True, **ids[name])
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg="The saved queries could not be made what they should be")
    touched = [*created, *updated, *removed]
    module.exit_json(
        changed=bool(touched),
        created=created,
        updated=updated,
        removed=removed,
        diff={side: {n: rows[n] for n in touched if n in rows} for side, rows in (("before", have), ("after", want))},
    )


if __name__ == "__main__":
    main()
