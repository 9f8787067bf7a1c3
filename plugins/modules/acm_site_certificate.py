#!/usr/bin/python
"""Ansible module for the certificate of a balancer: requested and validated through DNS, or made here and imported."""

DOCUMENTATION = r"""
---
module: acm_site_certificate
short_description: Have a certificate for a site in ACM
description:
  - With C(source=dns) requests a certificate, writes the records that prove the domain into Route 53, and waits until ACM has issued it.
    No collection has a module that requests one. ACM renews it by itself as long as the records stay.
  - With C(source=selfsigned) makes a certificate and imports it, for a rehearsal; its key is kept nowhere else. It is replaced 30 days
    before it ends.
  - A certificate is found by its tag C(Name).
options:
  name:
    description: Value of its tag C(Name).
    type: str
    required: true
  domain:
    description: The site's name. Needed unless C(state=absent).
    type: str
  alternative_names:
    description: More names.
    type: list
    elements: str
    default: []
  source:
    description: Where the certificate comes from.
    type: str
    choices: [dns, selfsigned]
    default: dns
  zone:
    description: The hosted zone for the records that prove the domain. Without one they are only returned, and nothing is waited for.
    type: str
  wait_timeout:
    description: Seconds to wait for ACM.
    type: int
    default: 900
  state:
    description: Whether there shall be one.
    type: str
    choices: [present, absent]
    default: present
  tags:
    description: More tags.
    type: dict
    default: {}
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
- name: The site has a certificate
  acm_site_certificate:
    name: pergola-production
    domain: apps.example.org
    zone: example.org
  register: certificate
"""

RETURN = r"""
arn:
  description: The certificate; empty when there is none yet (check mode).
  returned: success
  type: str
status:
  description: As ACM has it, C(ISSUED) when it can be used.
  returned: success
  type: str
records:
  description: Name, type and value of the DNS records that prove the domain.
  returned: success
  type: list
  elements: dict
"""

import datetime as dt  # noqa: E402 - Ansible wants the documentation first
import ipaddress  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule  # noqa: E402
from ansible_collections.amazon.aws.plugins.module_utils.retries import AWSRetry  # noqa: E402

try:
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError:  # AnsibleAWSModule says what is missing
    BotoCoreError = ClientError = Exception

KEY_TYPES = [
    "RSA_2048",
    "RSA_3072",
    "RSA_4096",
    "EC_prime256v1",
    "EC_secp384r1",
    "EC_secp521r1",
]  # ACM lists only RSA_2048 unasked
RENEW = dt.timedelta(days=30)
LIFE = dt.timedelta(days=365)


def existing(client: Any, name: str) -> dict[str, Any] | None:
    """Return the certificate with a name, the newest if there are several."""
    found = []
    for page in client.get_paginator("list_certificates").paginate(Includes={"keyTypes": KEY_TYPES}):
        for entry in page["CertificateSummaryList"]:
            arn = entry["CertificateArn"]
            tags = client.list_tags_for_certificate(CertificateArn=arn, aws_retry=True)["Tags"]
            if {"Key": "Name", "Value": name} in tags:
                found.append(client.describe_certificate(CertificateArn=arn, aws_retry=True)["Certificate"])
    usable = [one for one in found if one["Status"] in {"ISSUED", "PENDING_VALIDATION"}]
    return max(usable, key=lambda one: str(one.get("CreatedAt") or one.get("ImportedAt")), default=None)


def fits(found: dict[str, Any], given: dict[str, Any]) -> bool:
    """Return whether a certificate is what is asked for, and not about to end."""
    names = {given["domain"], *given["alternative_names"]}
    imported = found["Type"] == "IMPORTED"
    ends = found.get("NotAfter")
    old = imported and ends is not None and ends - dt.datetime.now(dt.UTC) < RENEW
    return imported == (given["source"] == "selfsigned") and names <= set(found["SubjectAlternativeNames"]) and not old


def self_signed(domain: str, names: list[str], began: dt.datetime | None = None) -> dict[str, bytes]:
    """Return a certificate and its key, as ACM imports them; it is valid for LIFE from now, or from when it began."""
    from cryptography import x509  # noqa: PLC0415 - only a rehearsal needs it
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key, now = ec.generate_private_key(ec.SECP256R1()), began or dt.datetime.now(dt.UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, domain)])
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + LIFE)
    # a rehearsal's balancer answers on loopback
    here = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    others = x509.SubjectAlternativeName([*(x509.DNSName(name) for name in names), *here])
    pem = (
        builder.add_extension(others, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    form, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, form, none)
    return {"Certificate": pem, "CertificateChain": pem, "PrivateKey": secret}


def make(client: Any, given: dict[str, Any], found: dict[str, Any] | None) -> str:
    """Request or import a certificate; return its ARN."""
    names = list(dict.fromkeys([given["domain"], *given["alternative_names"]]))
    tags = [{"Key": key, "Value": str(value)} for key, value in {**given["tags"], "Name": given["name"]}.items()]
    if given["source"] == "selfsigned":
        again = {"CertificateArn": found["CertificateArn"]} if found and found["Type"] == "IMPORTED" else {}
        made = client.import_certificate(**self_signed(given["domain"], names), **again, aws_retry=True)
        client.add_tags_to_certificate(CertificateArn=made["CertificateArn"], Tags=tags, aws_retry=True)
        return str(made["CertificateArn"])
    more = {"SubjectAlternativeNames": names} if len(names) > 1 else {}
    made = client.request_certificate(
        DomainName=given["domain"],
        ValidationMethod="DNS",
        KeyAlgorithm="EC_prime256v1",
        Tags=tags,
        **more,
        aws_retry=True,
    )
    return str(made["CertificateArn"])


def records(client: Any, arn: str, deadline: float) -> list[dict[str, str]]:
    """Return the records that prove the domain; ACM needs some seconds to name them."""
    while True:
        options = client.describe_certificate(CertificateArn=arn, aws_retry=True)["Certificate"].get(
            "DomainValidationOptions", []
        )
        if options and all("ResourceRecord" in option for option in options):
            unique = {
                (o["ResourceRecord"]["Name"], o["ResourceRecord"]["Type"], o["ResourceRecord"]["Value"])
                for o in options
            }
            return [{"name": name, "type": kind, "value": value} for name, kind, value in sorted(unique)]
        if time.monotonic() > deadline:
            return []
        time.sleep(2)


def prove(module: AnsibleAWSModule, arn: str, wanted: list[dict[str, str]]) -> None:
    """Write the records into the hosted zone."""
    client = module.client("route53", retry_decorator=AWSRetry.jittered_backoff())
    zone = module.params["zone"].rstrip(".") + "."
    listed = client.list_hosted_zones_by_name(DNSName=zone, aws_retry=True)["HostedZones"]
    ids = [one["Id"] for one in listed if one["Name"] == zone and not one["Config"].get("PrivateZone")]
    if not ids:
        module.fail_json(
            msg=f"there is no public hosted zone {zone} in Route 53; create it, or leave `zone` out and write: {wanted}",
            arn=arn,
        )
    changes = [
        {"Action": "UPSERT", "ResourceRecordSet": {
            "Name": one["name"], "Type": one["type"], "TTL": 300, "ResourceRecords": [{"Value": one["value"]}]}}
        for one in wanted
    ]  # fmt: skip
    client.change_resource_record_sets(HostedZoneId=ids[0], ChangeBatch={"Changes": changes}, aws_retry=True)


def issued(module: AnsibleAWSModule, client: Any, arn: str, deadline: float) -> str:
    """Return the status of a certificate once ACM has decided."""
    while True:
        found = client.describe_certificate(CertificateArn=arn, aws_retry=True)["Certificate"]
        if found["Status"] != "PENDING_VALIDATION":
            break
        if time.monotonic() > deadline:
            module.fail_json(
                msg=f"{arn} is still not validated; does the registrar name the zone's servers? Then run this again.",
                arn=arn,
            )
        time.sleep(5)
    if found["Status"] != "ISSUED":
        module.fail_json(
            msg=f"ACM refused {arn}: {found['Status']} {found.get('FailureReason', '')}; delete it and run this again",
            arn=arn,
        )
    return str(found["Status"])


def present(module: AnsibleAWSModule, client: Any) -> dict[str, Any]:
    """See to it that there is a certificate."""
    given, deadline = module.params, time.monotonic() + module.params["wait_timeout"]
    found = existing(client, given["name"])
    change = found is None or not fits(found, given)
    if module.check_mode and change:
        return {"changed": True, "arn": found["CertificateArn"] if found else "", "status": "", "records": []}
    arn = make(client, given, found) if change else str(found["CertificateArn"])  # type: ignore[index]
    wanted = records(client, arn, deadline) if given["source"] == "dns" else []
    status = (
        "ISSUED"
        if given["source"] == "selfsigned"
        else str(found["Status"])
        if found and not change
        else "PENDING_VALIDATION"
    )
    if given["source"] == "dns" and given["zone"] and status != "ISSUED" and not module.check_mode:
        prove(module, arn, wanted)
        status = issued(module, client, arn, deadline)
    return {"changed": change, "arn": arn, "status": status, "records": wanted}


def absent(module: AnsibleAWSModule, client: Any) -> dict[str, Any]:
    """See to it that there is none."""
    found = existing(client, module.params["name"])
    if found and not module.check_mode:
        client.delete_certificate(CertificateArn=found["CertificateArn"], aws_retry=True)
    return {"changed": found is not None, "arn": "", "status": "", "records": []}


def main() -> None:
    """Run the module."""
    module = AnsibleAWSModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "domain": {"type": "str"},
            "alternative_names": {"type": "list", "elements": "str", "default": []},
            "source": {"type": "str", "default": "dns", "choices": ["dns", "selfsigned"]},
            "zone": {"type": "str"},
            "wait_timeout": {"type": "int", "default": 900},
            "state": {"type": "str", "default": "present", "choices": ["present", "absent"]},
            "tags": {"type": "dict", "default": {}},
        },
        required_if=[("state", "present", ["domain"])],
        supports_check_mode=True,
    )
    client = module.client("acm", retry_decorator=AWSRetry.jittered_backoff())
    try:
        result = present(module, client) if module.params["state"] == "present" else absent(module, client)
    except (BotoCoreError, ClientError) as error:
        module.fail_json_aws(error, msg=f"the certificate {module.params['name']} cannot be had")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
