"""The modules for scaling groups and certificates, against a rehearsed account without containers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.amazon.aws.plugins.module_utils.retries import RetryingBotoClientWrapper
from cryptography import x509

from plugins.modules import acm_site_certificate, scaling_group
from tests.unit.rehearsal.conftest import Account

HOOKS = [
    {"name": "serve", "transition": "launching", "result": "ABANDON", "seconds": 900},
    {"name": "leave", "transition": "terminating", "result": "CONTINUE", "seconds": 60},
]


def module(account: Account, *, check_mode: bool, **params: Any) -> Any:
    """Stand in for what Ansible hands to a module: parameters and clients."""

    def client(service: str, retry_decorator: Any) -> Any:
        return RetryingBotoClientWrapper(account.client(service), retry_decorator)

    def fail(**said: Any) -> None:
        pytest.fail(str(said))

    return SimpleNamespace(params=params, check_mode=check_mode, client=client, fail_json=fail)


def group(account: Account, name: str, *, check_mode: bool = False, **more: Any) -> tuple[list[str], dict[str, Any]]:
    """Bring a group to a state; return what changed and what the module says."""
    given = {
        "name": name, "state": "present", "launch_template": account.template, "version": "1", "min": 2, "max": 4, "desired": 2,
        "subnets": account.subnets, "target_groups": [account.target_group], "grace": 300, "spot": None, "hooks": HOOKS,
        "targets": [{"name": f"{name}-cpu", "metric": "ASGAverageCPUUtilization", "label": None, "value": 70.0, "warmup": 60}],
        "schedule": [], "tags": {"Project": "pergola"}, "wait_timeout": 60, **more,
    }  # fmt: skip
    made = scaling_group.Group(module(account, check_mode=check_mode, **given))
    said = made.present() if given["state"] == "present" else made.absent()
    return made.changes, said


def test_a_group_is_made_once_with_its_hooks(account: Account) -> None:
    changes, said = group(account, "once")
    assert changes[0] == "the group"
    assert said == {"version_before": "", "size": 2}
    held = account.client("autoscaling").describe_lifecycle_hooks(AutoScalingGroupName="once")["LifecycleHooks"]
    assert {hook["LifecycleHookName"] for hook in held} == {"serve", "leave"}
    assert group(account, "once") == ([], {"version_before": "1", "size": 2})
    account.until(lambda: len(account.group("once")["Instances"]) == 2)
    assert {i["LifecycleState"][:7] for i in account.group("once")["Instances"]} == {"Pending"}, "held at its hook"


def test_a_preview_says_everything_and_does_nothing(account: Account) -> None:
    changes, _ = group(account, "preview", check_mode=True)
    assert changes[0] == "the group"
    found = account.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=["preview"])
    assert found["AutoScalingGroups"] == []


def test_scaling_moves_the_size_and_the_role_leaves_it(account: Account) -> None:
    group(account, "moved", hooks=[])
    account.client("autoscaling").set_desired_capacity(AutoScalingGroupName="moved", DesiredCapacity=3)
    assert group(account, "moved", hooks=[]) == ([], {"version_before": "1", "size": 3})
    changes, said = group(account, "moved", hooks=[], max=2)
    assert changes == ["MaxSize, DesiredCapacity"]
    assert said["size"] == 2


def test_what_differs_is_named_and_changed(account: Account) -> None:
    group(account, "differs")
    later = [{**HOOKS[0], "seconds": 1200}]
    times = [{"name": "night", "at": "0 22 * * *", "min": 2, "max": 2, "desired": None}]
    changes, _ = group(account, "differs", hooks=later, schedule=times, tags={"Project": "other"}, grace=60)
    assert changes == ["HealthCheckGracePeriod", "tags", "hooks: serve", "hooks: leave removed", "times: night"]
    assert group(account, "differs", hooks=later, schedule=times, tags={"Project": "other"}, grace=60)[0] == []


def test_the_other_colour_waits_empty(account: Account) -> None:
    _, said = group(account, "green", min=0, max=0, desired=0)
    assert said["size"] == 0
    assert account.group("green")["Instances"] == []
    assert group(account, "green", min=2, max=4, desired=2)[1]["size"] == 2


def test_a_group_is_removed_once(account: Account) -> None:
    group(account, "gone")
    assert group(account, "gone", state="absent")[0] == ["the group removed"]
    assert group(account, "gone", state="absent")[0] == []


def certificate(account: Account, *, check_mode: bool = False, **more: Any) -> dict[str, Any]:
    """Bring a certificate to a state."""
    given = {"name": "site", "domain": "apps.example.org", "alternative_names": [], "source": "selfsigned", "zone": None,
             "wait_timeout": 20, "state": "present", "tags": {"Project": "pergola"}, **more}  # fmt: skip
    stand_in = module(account, check_mode=check_mode, **given)
    client = stand_in.client("acm", scaling_group.AWSRetry.jittered_backoff())
    work = acm_site_certificate.present if given["state"] == "present" else acm_site_certificate.absent
    return dict(work(stand_in, client))


def test_a_certificate_is_made_once_and_replaced_in_place(account: Account) -> None:
    assert certificate(account, name="own", check_mode=True) == {
        "changed": True,
        "arn": "",
        "status": "",
        "records": [],
    }
    first = certificate(account, name="own")
    assert (first["changed"], first["status"]) == (True, "ISSUED")
    assert certificate(account, name="own") == {**first, "changed": False}
    pem = account.client("acm").get_certificate(CertificateArn=first["arn"])["Certificate"]
    names = x509.load_pem_x509_certificate(pem.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"], (
        "visitors come by loopback"
    )
    other = certificate(account, name="own", alternative_names=["www.example.org"])
    assert (other["changed"], other["arn"]) == (True, first["arn"]), "listeners name its ARN"
    assert certificate(account, name="own", state="absent")["changed"]
    assert not certificate(account, name="own", state="absent")["changed"]


def test_a_certificate_is_proved_through_the_zone(account: Account) -> None:
    route = account.client("route53")
    zone = route.create_hosted_zone(Name="example.net", CallerReference="once")["HostedZone"]["Id"]
    made = certificate(account, name="dns", domain="apps.example.net", source="dns", zone="example.net")
    assert made["status"] == "ISSUED"
    kept = {one["Name"] for one in route.list_resource_record_sets(HostedZoneId=zone)["ResourceRecordSets"]}
    assert made["records"]
    assert {one["name"] for one in made["records"]} <= kept
    assert not certificate(account, name="dns", domain="apps.example.net", source="dns", zone="example.net")["changed"]
