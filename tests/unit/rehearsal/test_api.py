"""The API of the rehearsal: its log, injected errors, the mailbox, and what a playbook reads back."""

from __future__ import annotations

import datetime as dt
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.world import DOOR, RehearsalError
from rehearsal.__main__ import ask
from tests.unit.rehearsal.conftest import Account


@pytest.fixture
def faults(account: Account) -> Iterator[Account]:
    yield account
    ask(account.cloud.world.settings, "fault", {"kind": "none"})


def test_every_call_is_logged(account: Account) -> None:
    account.client("s3").create_bucket(Bucket="logged")
    account.client("secretsmanager").list_secrets()
    log = account.cloud.world.settings.directory / "requests.jsonl"
    calls = [json.loads(line) for line in log.read_text().splitlines()]
    made = {(call["service"], call["action"], call["status"]) for call in calls}
    assert {("ec2", "CreateVpc", 200), ("s3", "PUT /logged", 200), ("secretsmanager", "ListSecrets", 200)} <= made


@pytest.mark.parametrize("kind", ["throttle", "error"])
@pytest.mark.parametrize(
    ("service", "call"),
    [
        ("ec2", "describe_vpcs"),
        ("s3", "list_buckets"),
        ("elbv2", "describe_load_balancers"),
        ("secretsmanager", "list_secrets"),
    ],
)
def test_clients_retry_injected_errors(
    faults: Account, monkeypatch: pytest.MonkeyPatch, kind: str, service: str, call: str
) -> None:
    answers = iter([0.0, 0.9] * 20)  # every other call is refused
    chance = SimpleNamespace(
        random=lambda: next(answers)
    )  # the server's own: clients take chances too, when they retry
    monkeypatch.setattr("emulator.server.random", chance)
    ask(faults.cloud.world.settings, "fault", {"kind": kind, "what": "0.5"})
    answer = getattr(faults.client(service), call)()
    assert answer["ResponseMetadata"]["RetryAttempts"] == 1


def test_a_wrong_fault_says_what_there_is(faults: Account) -> None:
    with pytest.raises(RehearsalError, match=r"no such fault: flood\. There are: throttle, error"):
        ask(faults.cloud.world.settings, "fault", {"kind": "flood"})
    with pytest.raises(RehearsalError, match="takes the share of calls, 0 to 1, not 7"):
        ask(faults.cloud.world.settings, "fault", {"kind": "error", "what": "7"})


def test_mail_arrives(account: Account) -> None:
    sns = account.client("sns")
    topic = sns.create_topic(Name="alerts")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="email", Endpoint="ops@example.org")
    sns.publish(TopicArn=topic, Subject="Disk full", Message="on host 1")
    letters = list((account.cloud.world.settings.directory / "mail").glob("*-ops@example.org.eml"))
    assert "Subject: Disk full\n\non host 1\n" in letters[0].read_text()


def test_the_door_is_only_on_this_machine(account: Account) -> None:
    from emulator.server import Api, listen, serve

    sock = listen("127.0.0.1", 0)
    port = sock.getsockname()[1]
    server = serve(Api(account.cloud.world, account.cloud.control, where="10.0.0.2"), sock, "inside")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}{DOOR}status", data=b"{}", timeout=10)
    server.shutdown()


def test_status_names_what_there_is(account: Account) -> None:
    name = account.make_group(desired=1)
    account.until(lambda: account.group(name)["Instances"])
    status = ask(account.cloud.world.settings, "status")
    group = next(row for row in status["groups"] if row["group"] == name)
    assert (group["min"], group["desired"], group["max"]) == (1, 1, 10)
    assert status["problems"] == {}


def test_balancers_have_the_attributes_that_modules_read(account: Account) -> None:
    elb = account.client("elbv2")
    made = elb.create_load_balancer(Name="front", Subnets=account.subnets)["LoadBalancers"][0]
    found = elb.describe_load_balancer_attributes(LoadBalancerArn=made["LoadBalancerArn"])["Attributes"]
    assert {"idle_timeout.timeout_seconds": "60", "routing.http2.enabled": "true"}.items() <= {
        a["Key"]: a["Value"] for a in found
    }.items()


def test_a_missing_parameter_group_is_an_error(account: Account) -> None:
    rds = account.client("rds")
    with pytest.raises(rds.exceptions.DBParameterGroupNotFoundFault):
        rds.describe_db_parameter_groups(DBParameterGroupName="nowhere")


def test_a_new_alarm_knows_nothing(account: Account) -> None:
    watch = account.client("cloudwatch")
    watch.put_metric_alarm(AlarmName="new", MetricName="X", Namespace="N", Statistic="Average", Period=60, EvaluationPeriods=1,
                           Threshold=1, ComparisonOperator="GreaterThanThreshold")  # fmt: skip
    assert watch.describe_alarms(AlarmNames=["new"])["MetricAlarms"][0]["StateValue"] == "INSUFFICIENT_DATA"


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("ec2", "describe_vpcs", "SignatureDoesNotMatch"),
        ("s3", "list_buckets", "RequestTimeTooSkewed"),
        ("secretsmanager", "list_secrets", "InvalidSignatureException"),
    ],
)
def test_who_signs_at_another_time_is_refused_as_by_aws(account: Account, service: str, call: str, code: str) -> None:
    client, minutes = account.client(service), [0]

    def later(request: Any, **_: Any) -> None:
        moment = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes[0])
        del request.headers["X-Amz-Date"]
        request.headers["X-Amz-Date"] = moment.strftime("%Y%m%dT%H%M%SZ")

    client.meta.events.register("before-send", later)
    for minutes[0] in (14, -14):
        assert getattr(client, call)()
    for minutes[0] in (16, -16):
        with pytest.raises(ClientError) as refused:
            getattr(client, call)()
        assert refused.value.response["Error"]["Code"] == code
        assert re.fullmatch(r"the caller's clock is -?9\d\d s wrong", refused.value.response["Error"]["Message"])


def test_the_console_of_an_instance_that_is_gone_is_kept(account: Account) -> None:
    ec2 = account.client("ec2")
    made = ec2.run_instances(ImageId=account.ami, MinCount=1, MaxCount=1, SubnetId=account.subnets[0])["Instances"][0][
        "InstanceId"
    ]
    assert ec2.get_console_output(InstanceId=made, Latest=True)["Output"] == "", "not the lines of some machine of 2006"
    account.cloud.world.consoles[made] = "pergola: gave up\n"
    assert ec2.get_console_output(InstanceId=made, Latest=True)["Output"] == "pergola: gave up\n"
