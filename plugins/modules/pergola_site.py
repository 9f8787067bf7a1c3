#!/usr/bin/python
"""Ansible module that builds the release of a site on the control node and puts it into the artefact bucket."""

DOCUMENTATION = r"""
---
module: pergola_site
short_description: Build the release of a site and upload it
description:
  - Builds the bundles of the apps, the host plane, what runs it on a host, and the bill of materials (CycloneDX 1.6), and puts them
    into a bucket.
  - Every key is named by the content behind it and is written once; what the bucket has is not sent again.
  - Runs on the control node.
options:
  root:
    description: The project's folder.
    type: path
    required: true
  apps:
    description: Names of apps, or mappings with C(path) for an app that lives elsewhere.
    type: list
    elements: raw
    required: true
  variables:
    description: What C(playbooks/host.yml) gets on a host, with C(pergola_plan). No secrets.
    type: dict
    required: true
  secrets:
    description: By app and name, the Secrets Manager name under which a host finds each secret.
    type: dict
    default: {}
  database:
    description: Names of the secrets with which a host gives its apps their databases on a server; no values.
    type: dict
    default: {}
  out:
    description: Folder for the files.
    type: path
    required: true
  python:
    description: Python of the hosts as major.minor, at least 3.12.
    type: str
    default: "3.13"
  machine:
    description: Architecture of the hosts.
    type: str
    choices: [x86_64, amd64, aarch64, arm64]
    default: x86_64
  bucket:
    description: The artefact bucket. Nothing is uploaded without one.
    type: str
extends_documentation_fragment:
  - amazon.aws.common.modules
  - amazon.aws.region.modules
  - amazon.aws.boto3
attributes:
  check_mode:
    support: full
author: [Pergola contributors]
"""

EXAMPLES = r"""
- name: The release is in the artefact bucket
  pergola_site:
    root: "{{ playbook_dir }}/.."
    apps: [portal, wine]
    variables: {pergola_plan: "{{ pergola_plan }}"}
    out: build/bundles
    bucket: example-artefacts
  register: release
"""

RETURN = r"""
release:
  description: Id of the release, 12 hex digits.
  returned: success
  type: str
key:
  description: Key of its index in the bucket.
  returned: success
  type: str
sha256:
  description: Checksum of the index.
  returned: success
  type: str
uploaded:
  description: Keys that were (or, in check mode, would be) sent.
  returned: success
  type: list
  elements: str
size:
  description: Bytes of all files of the release.
  returned: success
  type: int
sizes:
  description: Bytes by kind. What apps share counts once.
  returned: success
  type: dict
  sample: {packages: 20308751, apps: 167546, host plane: 66137, what runs it: 3332618, lists: 20248}
"""

import base64  # noqa: E402 - Ansible wants the documentation first
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.amazon.aws.plugins.module_utils.botocore import is_boto3_error_code  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry  # noqa: E402

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says what is missing
    BotoCoreError = ClientError = Exception


def missing(client: Any, bucket: str, files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the files that the bucket does not have; all of them when there is no bucket yet."""
    lacking = []
    for file in files:
        try:
            client.head_object(Bucket=bucket, Key=file["key"], aws_retry=True)
        except is_boto3_error_code(["404", "NoSuchKey", "NoSuchBucket", "NotFound"]):
            lacking.append(file)
    return lacking


def send(client: Any, bucket: str, file: dict[str, Any]) -> None:
    """Write an object that S3 checks on arrival; one that came in the meantime stays as it is."""
    checksum = base64.b64encode(bytes.fromhex(file["sha256"])).decode()
    try:
        with Path(file["path"]).open("rb") as stream:
            client.put_object(Bucket=bucket, Key=file["key"], Body=stream, ChecksumSHA256=checksum, IfNoneMatch="*")
    except is_boto3_error_code("PreconditionFailed"):
        return


def main() -> None:
    """Build the release, upload what is missing, and report it."""
    module = AnsibleAWSModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "apps": {"type": "list", "elements": "raw", "required": True},
            "variables": {"type": "dict", "required": True},
            "secrets": {"type": "dict", "default": {}, "no_log": False},
            "database": {"type": "dict", "default": {}},
            "out": {"type": "path", "required": True},
            "python": {"type": "str", "default": "3.13"},
            "machine": {"type": "str", "default": "x86_64", "choices": ["x86_64", "amd64", "aarch64", "arm64"]},
            "bucket": {"type": "str"},
        },
        supports_check_mode=True,
    )
    given = module.params
    root, out = Path(given["root"]).resolve(), Path(given["out"]).resolve()
    sys.path.insert(0, str(root))
    try:
        from app.core import manifest, site_release, tools  # noqa: PLC0415 - the project's folder is known only now
    except ImportError as error:
        module.fail_json(msg=f"cannot import the project at {root}: {error}; run `make venv` and use its Python")
    try:
        built = site_release.build(
            root,
            manifest.load_all(root, given["apps"]),
            variables=given["variables"],
            secrets=given["secrets"],
            database=given["database"],
            out=out,
            python=given["python"],
            machine=given["machine"],
            check=module.check_mode,
        )
    except (manifest.ManifestError, tools.BundleError, OSError) as error:
        module.fail_json(msg=f"the release cannot be built:\n{error}")
    files = built.pop("files")
    lacking = []
    if given["bucket"]:
        client = module.client("s3", retry_decorator=AWSRetry.jittered_backoff())
        try:
            lacking = missing(client, given["bucket"], files)
            for file in lacking if not module.check_mode else []:
                send(client, given["bucket"], file)
        except (BotoCoreError, ClientError) as error:
            module.fail_json_aws(error, msg=f"the release cannot be put into the bucket {given['bucket']}")
    built["changed"] = built["changed"] or bool(lacking)
    module.exit_json(**built, uploaded=[file["key"] for file in lacking], size=sum(file["size"] for file in files))


if __name__ == "__main__":
    main()
