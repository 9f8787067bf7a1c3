"""Deploys in two colours against the emulated AWS: the way there, and the way back from every place."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.core.cloud.site import COLOURS
from deploys.cloud import Cloud
from deploys.engine import Engine
from deploys.spec import DeployError, Fleet, Probe, Release, Spec
from deploys.store import CURRENT, LEASE, Lease, LeaseLostError, Store

# ---------------------------------------------------------------- the way there


def test_a_release_goes_live_in_the_other_colour(environment: Any, release_named: Callable[[str], Release]) -> None:
    engine = environment.engine(environment.spec("two"))
    assert engine.deploy() is True
    assert environment.every_rule() == [{"blue": 0, "green": 100}] * 2
    assert environment.live_release() == release_named("two")
    assert environment.states("green") == ["healthy", "healthy"]
    assert environment.states("blue") == ["healthy", "healthy"], "still warm"
    retires = engine.cloud.retirement(environment.groups["blue"])
    assert retires is not None
    assert 500 < (retires - datetime.now(UTC)).total_seconds() <= 600
    assert engine.cloud.retirement(environment.groups["green"]) is None
    history = engine.store.history()
    assert [(row["what"], row["ended"], row["by"], row["fleets"]["main"]["to"]) for row in history] == [
        ("deploy", "live", "ana", "green")
    ]
    assert engine.store.read(CURRENT) is None
    assert engine.store.read(LEASE) is None
    weights = [line.split()[1:3] for line in environment.lines if " weight " in line]
    assert weights == [["weight", "10"], ["weight", "50"], ["weight", "100"]]


def test_the_same_release_again_changes_nothing(environment: Any) -> None:
    engine = environment.engine(environment.spec("one"))
    assert engine.deploy() is False
    assert engine.store.history() == []
    assert environment.states("green") == []


def test_the_host_gets_the_release_and_its_own_names_and_nothing_else_changes(
    environment: Any, release_named: Callable[[str], Release]
) -> None:
    environment.engine(environment.spec("two")).deploy()
    cloud = Cloud("us-east-1", environment.name)
    blue, green = (cloud.template(environment.groups[colour], "$Latest")["LaunchTemplateData"] for colour in COLOURS)
    assert cloud.release_of(environment.groups["green"]) == release_named("two")
    tags = {tag["Key"]: tag["Value"] for tag in green["TagSpecifications"][0]["Tags"]}
    assert tags == {"Name": environment.groups["green"], "Colour": "green"}
    assert {key for key in blue if blue[key] != green[key]} == {"UserData", "TagSpecifications"}
    assert not cloud.give_release(environment.groups["green"], environment.groups["blue"], release_named("two")), (
        "twice is once"
    )


def test_the_new_colour_is_as_large_as_the_old_one_has_become(environment: Any) -> None:
    environment.client("autoscaling").set_desired_capacity(
        AutoScalingGroupName=environment.groups["blue"], DesiredCapacity=3
    )
    environment.until(lambda: environment.states("blue").count("healthy") == 3)
    environment.engine(environment.spec("two")).deploy()
    assert environment.states("green") == ["healthy"] * 3


def test_deploys_alternate(environment: Any) -> None:
    for name, colour in (("two", "green"), ("three", "blue"), ("four", "green")):
        environment.engine(environment.spec(name)).deploy()
        assert environment.weights()[colour] == 100
    assert [row["fleets"]["main"]["to"] for row in environment.engine(environment.spec("x")).store.history()] == [
        "green",
        "blue",
        "green",
    ]


def test_a_fresh_image_is_deployed_when_asked_for_and_once(
    environment: Any, release_named: Callable[[str], Release]
) -> None:
    for group in environment.groups.values():  # as baking one does
        template = environment.quiet().cloud.template(group, "$Latest")["LaunchTemplateData"]
        environment.client("ec2").create_launch_template_version(
            LaunchTemplateName=group, LaunchTemplateData={**template, "ImageId": "ami-760aaa0f"}
        )
    assert environment.engine(environment.spec("one")).deploy() is False, "the release is the same"
    patched = environment.spec("one", options={"newest_image": True})
    assert environment.engine(patched).deploy() is True
    assert environment.weights() == {"blue": 0, "green": 100}
    assert environment.live_release() == release_named("one")
    assert environment.quiet().cloud.image_of(environment.groups["green"]) == "ami-760aaa0f"
    assert environment.engine(patched).deploy() is False


# ---------------------------------------------------------------- the way back


def test_a_rollback_is_immediate_while_the_old_colour_is_warm(
    environment: Any, release_named: Callable[[str], Release]
) -> None:
    environment.engine(environment.spec("two")).deploy()
    blue = set(environment.engine(environment.spec("one")).cloud.hosts(environment.spec("one").fleets[0], "blue"))
    engine = environment.engine(environment.spec("one"))
    assert engine.rollback() is True
    assert environment.every_rule() == [{"blue": 100, "green": 0}] * 2
    assert environment.live_release() == release_named("one")
    assert set(engine.cloud.hosts(engine.spec.fleets[0], "blue")) == blue, "the same hosts, none was launched"
    assert engine.cloud.retirement(environment.groups["blue"]) is None
    environment.until(lambda: environment.states("green") == [])
    assert engine.store.history()[0]["what"] == "rollback"
    assert engine.rollback() is False


def test_a_rollback_launches_hosts_when_the_old_ones_are_gone(
    environment: Any, release_named: Callable[[str], Release]
) -> None:
    engine = environment.engine(environment.spec("two"))
    engine.deploy()
    engine.cloud.resize(environment.groups["blue"], 0, 0, 0)
    environment.until(lambda: environment.states("blue") == [])
    environment.engine(environment.spec("one")).rollback()
    assert environment.weights() == {"blue": 100, "green": 0}
    assert environment.live_release() == release_named("one")


def test_hosts_that_never_get_ready(environment: Any) -> None:
    environment.client("autoscaling").put_lifecycle_hook(
        AutoScalingGroupName=environment.groups["green"], LifecycleHookName="serve", LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING",
        HeartbeatTimeout=7200, DefaultResult="ABANDON",
    )  # fmt: skip
    engine = environment.engine(environment.spec("two", ready_seconds=1))
    with pytest.raises(DeployError, match=r"taken back: not ready after 1 s \(main: 0 of 2 hosts healthy\)"):
        engine.deploy()
    assert_as_before(environment, engine)


def test_hosts_that_give_up(environment: Any) -> None:
    environment.client("autoscaling").put_lifecycle_hook(
        AutoScalingGroupName=environment.groups["green"], LifecycleHookName="serve", LifecycleTransition="autoscaling:EC2_INSTANCE_LAUNCHING",
        HeartbeatTimeout=30, DefaultResult="ABANDON",
    )  # fmt: skip
    engine = environment.engine(environment.spec("two", ready_seconds=30))
    with pytest.raises(DeployError, match="new hosts did not become ready; the last: "):
        engine.deploy()
    assert_as_before(environment, engine)


@contextlib.contextmanager
def dying_at_weight_10(environment: Any, count: int) -> Iterator[None]:
    """Have so many of the new hosts die as soon as visitors come to them; the dead take their time to leave, their successors to come."""
    engine, scaling = environment.quiet(), environment.client("autoscaling")

    def kill() -> None:
        environment.until(lambda: environment.weights()["green"] == 10)
        for what in ("LAUNCHING", "TERMINATING"):
            scaling.put_lifecycle_hook(
                AutoScalingGroupName=environment.groups["green"], LifecycleHookName=what,
                LifecycleTransition=f"autoscaling:EC2_INSTANCE_{what}", HeartbeatTimeout=7200, DefaultResult="CONTINUE",
            )  # fmt: skip
        for host in sorted(engine.cloud.hosts(engine.spec.fleets[0], "green"))[:count]:
            scaling.terminate_instance_in_auto_scaling_group(InstanceId=host, ShouldDecrementDesiredCapacity=False)

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        yield
    finally:
        killing.join()


def test_one_of_two_new_hosts_may_die_and_be_replaced(environment: Any, release_named: Callable[[str], Any]) -> None:
    with dying_at_weight_10(environment, 1):
        environment.engine(environment.spec("two", bake_seconds=3)).deploy()
    assert environment.live_release() == release_named("two")
    assert len(environment.states("green")) == 3, "the dead one had not left and its successor had not come"


def test_when_all_new_hosts_die_it_is_taken_back(environment: Any, release_named: Callable[[str], Any]) -> None:
    engine = environment.engine(environment.spec("two", bake_seconds=10))
    with (
        dying_at_weight_10(environment, 2),
        pytest.raises(DeployError, match="taken back: at weight 10: main: only 0 of 2 new hosts are healthy"),
    ):
        engine.deploy()
    assert environment.weights() == {"blue": 100, "green": 0}
    assert environment.live_release() == release_named("one")


def test_an_alarm_takes_it_back(environment: Any) -> None:
    name = f"{environment.name}-errors"
    watch = environment.client("cloudwatch")
    watch.put_metric_alarm(
        AlarmName=name, Namespace=environment.name, MetricName="Errors", Statistic="Sum", Period=60, EvaluationPeriods=1, Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    engine = environment.engine(environment.spec("two", alarms=(name,), bake_seconds=120))
    over = threading.Event()

    def ring() -> None:
        environment.until(lambda: environment.weights()["green"] == 10)
        while not over.wait(0.2):
            watch.put_metric_data(Namespace=environment.name, MetricData=[{"MetricName": "Errors", "Value": 5}])

    ringing = threading.Thread(target=ring)
    ringing.start()
    try:
        with pytest.raises(DeployError, match=f"taken back: at weight 10: in alarm: {name}"):
            engine.deploy()
        assert_as_before(environment, engine)
        environment.until(lambda: engine.cloud.firing([name]) == [name])
        with pytest.raises(DeployError, match="not begun: in alarm already"):
            environment.engine(environment.spec("two", alarms=(name,))).deploy()
    finally:
        over.set()
        ringing.join()


def test_the_operator_takes_it_back(environment: Any) -> None:
    abort = threading.Event()
    engine = environment.engine(environment.spec("two", bake_seconds=60), abort)
    threading.Thread(
        target=lambda: (environment.until(lambda: environment.weights()["green"] == 10), abort.set())
    ).start()
    with pytest.raises(DeployError, match="taken back: the operator ended it"):
        engine.deploy()
    assert_as_before(environment, engine)


def assert_as_before(environment: Any, engine: Engine) -> None:
    assert environment.every_rule() == [{"blue": 100, "green": 0}] * 2
    assert environment.states("blue") == ["healthy", "healthy"]
    assert engine.cloud.retirement(environment.groups["blue"]) is None
    environment.until(lambda: environment.states("green") == [])
    assert engine.store.read(CURRENT) is None
    assert engine.store.read(LEASE) is None
    last = engine.store.history()[0]
    assert last["ended"] == "taken back"
    assert last["reason"]


# ---------------------------------------------------------------- what visitors get


class Site(http.server.BaseHTTPRequestHandler):
    """A site whose answers a test can spoil."""

    bad_every, delay, asked = 0, 0.0, 0

    def do_GET(self) -> None:
        kind = type(self)
        kind.asked += 1
        time.sleep(kind.delay)
        bad = kind.bad_every and kind.asked % kind.bad_every == 0
        self.send_response(500 if bad else 200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        return


class PatientServer(http.server.ThreadingHTTPServer):
    """A server whose queue is as long as a real one's: five connections are full as soon as the machine is busy."""

    request_queue_size = 128


@pytest.fixture
def site() -> Iterator[tuple[type[Site], str]]:
    kind = type("OneSite", (Site,), {})
    server = PatientServer(("127.0.0.1", 0), kind)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield kind, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def probe(url: str, slower_ms: float = 30_000) -> Probe:
    # how slow a visitor may be served is asked by one test alone: the others must not depend on what else the machine does
    return Probe(url, rate=40, sessions=0, flags=("--get=/", "--post="), failures=2, slower_ms=slower_ms)


def test_the_prober_watches_a_good_deploy(environment: Any, site: tuple[type[Site], str]) -> None:
    engine = environment.engine(environment.spec("two", bake_seconds=1.2, probe=probe(site[1])))
    assert engine.deploy() is True
    seen = engine.store.history()[0]["seen"]
    assert seen["sent"] > 50
    assert seen["failed"] == 0
    assert [row["name"] for row in seen["phases"]] == ["before", "weight 10", "weight 50", "weight 100"]


@pytest.mark.parametrize(
    ("spoil", "slower_ms", "reason"),
    [
        ({"bad_every": 20}, 30_000, r"at weight 10: \d+ of \d+ requests failed .*status 500"),
        ({"delay": 2.5}, 250, "at weight 10: slow: 95 %"),
    ],
)
def test_the_prober_takes_a_bad_release_back(
    environment: Any, site: tuple[type[Site], str], spoil: dict[str, Any], slower_ms: float, reason: str
) -> None:
    engine = environment.engine(environment.spec("two", bake_seconds=60, probe=probe(site[1], slower_ms)))
    weigh = engine._weigh

    def spoilt(moves: Any, weight: int) -> None:
        before = next(int(found[1]) for line in environment.lines if (found := re.search(r"p95 (\d+) ms", line)))
        for key, value in spoil.items():
            # far above three times what this machine needs for an answer of this site just now
            setattr(site[0], key, value if key != "delay" else max(value, 5 * before / 1000))
        weigh(moves, weight)

    engine._weigh = spoilt
    with pytest.raises(DeployError, match=reason):
        engine.deploy()
    assert_as_before(environment, engine)


def test_a_site_that_fails_already_is_not_deployed_to(environment: Any, site: tuple[type[Site], str]) -> None:
    site[0].bad_every = 1
    engine = environment.engine(environment.spec("two", probe=probe(site[1])))
    with pytest.raises(DeployError, match="requests failed before anything moved"):
        engine.deploy()
    assert_as_before(environment, engine)


# ---------------------------------------------------------------- one at a time, and whoever dies


def test_two_at_once(environment: Any) -> None:
    store = environment.engine(environment.spec("two")).store
    with Lease(store, "bea", 30), pytest.raises(DeployError, match=r"bea deploys here since .* one at a time"):
        environment.engine(environment.spec("two")).deploy()
    assert environment.engine(environment.spec("two")).deploy() is True


def test_a_lease_that_is_lost_moves_nothing_more(environment: Any) -> None:
    store: Store = environment.engine(environment.spec("two")).store
    with Lease(store, "ana", 30) as mine:
        mine.check()
        store.write(LEASE, {"owner": "bea", "token": "other", "seconds": 30, "since": "now"})
        with pytest.raises(LeaseLostError, match="whoever has it now goes on"):
            mine.check()
    kept = store.read(LEASE)
    assert kept is not None
    assert kept[0]["owner"] == "bea", "it is not ours to give back"


def test_an_expired_lease_is_taken(environment: Any) -> None:
    store = environment.engine(environment.spec("two")).store
    store.write(LEASE, {"owner": "bea", "token": "dead", "seconds": 0, "since": "then"})
    time.sleep(1.1)  # the bucket's clock has seconds
    with Lease(store, "ana", 30) as mine:
        mine.check()


KILLED_AT = [
    "launch     main: blue",
    "ready      main: 0 of",
    "ready      main: 2 of",
    "ready      after",
    "weight 10",
    "weight 50",
    "weight 100",
]


@pytest.mark.parametrize("line", KILLED_AT)
def test_a_controller_killed_anywhere_leaves_nothing_that_the_next_cannot_settle(
    environment: Any, line: str, release_named: Callable[[str], Release]
) -> None:
    spec = environment.spec("two", lease_seconds=1)
    process = environment.process("deploy", spec)
    try:
        assert any(line in told for told in process.stdout), process.stderr.read()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(2.2)  # the lease ends
    engine = environment.engine(replace(spec, lease_seconds=6))
    assert engine.deploy() in {True, False}
    assert environment.live_release() == release_named("two")
    assert sorted(environment.weights().values()) == [0, 100]
    live = max(environment.weights(), key=lambda colour: environment.weights()[colour])
    assert environment.states(live) == ["healthy", "healthy"]
    assert engine.store.read(CURRENT) is None


@pytest.mark.parametrize("how", ["the terminal ends", "SIGINT", "SIGTERM"])
def test_whoever_ends_the_command_gets_everything_back(environment: Any, how: str) -> None:
    process = environment.process("deploy", environment.spec("two", bake_seconds=60))
    assert any("ready      after" in told for told in process.stdout)
    environment.until(lambda: environment.weights()["green"] == 10)
    if how == "the terminal ends":
        process.stdin.close()
    else:
        process.send_signal(getattr(signal, how))
    lines = process.stdout.read().splitlines()
    assert process.wait(30) == 1
    assert json.loads(lines[-1]) == {"failed": True, "msg": "taken back: the operator ended it"}
    assert_as_before(environment, environment.engine(environment.spec("two")))


def test_settling_alone_says_what_it_did(environment: Any) -> None:
    engine = environment.engine(environment.spec("two"))
    assert engine.settle_alone() == ""
    assert engine.unfinished() == {"unfinished": "", "abandoned": False}
    process = environment.process("deploy", environment.spec("two", bake_seconds=60, lease_seconds=6))
    assert any("ready      after" in told for told in process.stdout)
    environment.until(lambda: environment.weights()["green"] == 10)
    told = engine.unfinished()
    assert not told["abandoned"]
    assert "is under way, in its phase 'shift'; its controller was heard of " in told["unfinished"]
    process.kill()
    process.wait()
    assert engine.status()["under_way"]["phase"] == "shift"
    environment.until(lambda: engine.unfinished()["abandoned"])
    left = engine.unfinished()["unfinished"]
    assert "was interrupted in its phase 'shift'; the next deploy, rollback or status has it taken back" in left
    assert "was interrupted in its phase 'shift': taken back" in engine.settle_alone()
    assert_as_before(environment, engine)


# ---------------------------------------------------------------- what is told, what is refused


def test_the_status_has_a_row_for_each_colour(environment: Any, release_named: Callable[[str], Release]) -> None:
    environment.engine(environment.spec("two")).deploy()
    rows = {row["colour"]: row for row in environment.engine(environment.spec("one")).status()["colours"]}
    assert (rows["green"]["weight"], rows["green"]["hosts"], rows["green"]["healthy"], rows["green"]["release"]) == (
        100,
        2,
        2,
        release_named("two").short,
    )
    assert (rows["blue"]["weight"], rows["blue"]["healthy"], rows["blue"]["release"]) == (
        0,
        2,
        release_named("one").short,
    )
    assert rows["blue"]["retires"]


def test_the_old_hosts_leave_when_their_time_is_over(environment: Any) -> None:
    engine = environment.engine(environment.spec("two"))
    engine.deploy()
    cloud, blue = engine.cloud, environment.groups["blue"]
    cloud.stay(blue)
    cloud.retire_at(blue, datetime.now(UTC) + timedelta(seconds=1), "now")
    # a scheduled action runs in its minute
    environment.until(lambda: environment.states("blue") == [], seconds=75)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"weights": (10, 50)}, "the weights must grow"),
        ({"weights": (50, 10, 100)}, "the weights must grow"),
        ({"weights": ()}, "the weights must grow"),
        ({"bake_seconds": -1}, "bake_seconds must not be negative"),
        ({"fleets": ()}, "there is no fleet"),
    ],
)
def test_what_cannot_work_is_refused(change: dict[str, Any], said: str) -> None:
    fleet = Fleet("main", {}, {}, 1, 2, 1, Release("k", "0" * 64))
    with pytest.raises(DeployError, match=said):
        Spec(**{"environment": "x", "region": "r", "bucket": "b", "balancer": "l", "fleets": (fleet,), **change})


@pytest.mark.parametrize(
    "data", [{}, {"fleets": [{"name": "x"}]}, {"fleets": [], "unknown": 1}, {"fleets": [{"name": "x", "release": {}}]}]
)
def test_a_description_that_is_none(data: dict[str, Any]) -> None:
    with pytest.raises(DeployError):
        Spec.of(data)


def test_an_environment_that_is_not_there(environment: Any) -> None:
    with pytest.raises(DeployError, match=r"there is no bucket nothing; make the environment first"):
        environment.engine(environment.spec("two", bucket="nothing")).deploy()
