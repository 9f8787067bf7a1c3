"""What holds whatever happens: targets that fail get nothing, and a scaling group stays within its bounds and comes to what is wished."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from app.core.cloud.balancer import HEALTH
from emulator.checks import Check
from rehearsal.balancer import Balancers
from rehearsal.cloud import Cloud
from rehearsal.network import Networks
from tests.unit.rehearsal.conftest import Account, number
from tests.unit.rehearsal.test_parts import Site

results = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def site(cloud: Cloud) -> Site:
    """Give a balancer whose one target group has three targets, checked as the cloud plan says."""
    made = Site(Account(cloud))
    more = made.account.client("ec2").run_instances(
        ImageId=made.account.ami, MinCount=1, MaxCount=1, SubnetId=made.account.subnets[0]
    )["Instances"]
    made.instances += more
    targets = [{"Id": instance["InstanceId"]} for instance in made.instances]
    made.elb.register_targets(TargetGroupArn=made.blue, Targets=targets)
    made.elb.modify_target_group(
        TargetGroupArn=made.blue, HealthyThresholdCount=HEALTH["healthy"], UnhealthyThresholdCount=HEALTH["unhealthy"]
    )
    made.listener({"Type": "forward", "TargetGroupArn": made.blue})
    return made


@settings(max_examples=40, deadline=None)
@given(results)
def test_after_three_failed_checks_a_target_gets_nothing_and_after_two_good_ones_its_share(
    site: Site, checks: list[tuple[bool, bool, bool]]
) -> None:
    """Unless every target fails: then AWS asks them all."""
    world = site.account.cloud.world
    world.health.clear()
    balancers = Balancers(world, Networks(world, lambda _: None))
    ids = [instance["InstanceId"] for instance in site.instances]
    for round_, answers in enumerate(checks, 1):
        balancers.checks.fresh.clear()
        for target, good in zip(ids, answers, strict=True):
            check = Check(site.blue, target, "10.20.0.9", 443, "HTTPS", "/health", 5, "200", 0)
            balancers.checks.note(check, None if good else "Target.Timeout", "")
        world.health.update(balancers.checks.fresh)
        asked = set(re.findall(r"^  server (\S+)", site.config(), re.MULTILINE))
        past = {target: [row[place] for row in checks[:round_]] for place, target in enumerate(ids)}
        failed = {target for target, seen in past.items() if len(seen) >= 3 and not any(seen[-3:])}
        healed = {target for target, seen in past.items() if len(seen) >= 2 and all(seen[-2:])}
        assert healed <= asked
        assert asked
        if healed:
            assert not failed & asked


@contextlib.contextmanager
def refused(words: str) -> Iterator[None]:
    """Let a call be refused with these words, and for nothing else."""
    try:
        yield
    except ClientError as error:
        if words not in str(error):
            raise


class Fleet(RuleBasedStateMachine):
    """A scaling group to which anything may happen, while the loop takes one step after the other."""

    account: ClassVar[Account]

    def __init__(self) -> None:
        super().__init__()
        self.scaling, self.world = self.account.cloud.scaling, self.account.cloud.world
        self.api = self.account.client("autoscaling")
        self.name = ""

    @initialize(low=st.integers(2, 10), wide=st.integers(0, 8), more=st.integers(0, 8))
    def make(self, low: int, wide: int, more: int) -> None:
        high = min(10, low + wide)
        self.name = self.account.make_group(desired=min(low + more, high), minimum=low)
        self.api.update_auto_scaling_group(AutoScalingGroupName=self.name, MaxSize=high)
        self.step(8)

    def teardown(self) -> None:
        self.world.suspended.clear()
        if self.name:
            self.api.delete_auto_scaling_group(AutoScalingGroupName=self.name, ForceDelete=True)

    @property
    def group(self) -> Any:
        return self.world.backend("autoscaling").autoscaling_groups[self.name]

    def alive(self) -> list[Any]:
        return [state for state in self.group.instance_states if not state.lifecycle_state.startswith("Terminating")]

    @rule(steps=st.integers(1, 4))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            with self.world.lock:
                self.scaling.step()
                assert self.group.min_size <= self.group.desired_capacity <= self.group.max_size
                assert len(self.alive()) <= self.group.max_size + self.scaling._extra(self.group)
                if not self.world.suspended:  # what died is launched anew in the same step
                    assert len(self.alive()) >= self.group.min_size

    @rule(wish=st.integers(-3, 30), shrink=st.booleans())
    def a_metric_asks_for(self, wish: int, shrink: bool) -> None:
        with self.world.lock:
            self.scaling.cooling.clear()
            self.scaling._resize(self.group, "policy", wish, 0, shrink=shrink)

    @rule(wish=st.integers(-1, 15))
    def somebody_asks_for(self, wish: int) -> None:
        low, high = self.group.min_size, self.group.max_size
        with contextlib.nullcontext() if low <= wish <= high else pytest.raises(ClientError):
            self.api.set_desired_capacity(AutoScalingGroupName=self.name, DesiredCapacity=wish)

    @rule(low=st.integers(2, 10), wide=st.integers(0, 8))
    def bounds_change(self, low: int, wide: int) -> None:
        self.api.update_auto_scaling_group(AutoScalingGroupName=self.name, MinSize=low, MaxSize=min(10, low + wide))

    @rule(low=st.integers(2, 10), wide=st.integers(0, 8), wish=st.integers(0, 15))
    def a_schedule_comes(self, low: int, wide: int, wish: int) -> None:
        self.api.put_scheduled_update_group_action(
            AutoScalingGroupName=self.name, ScheduledActionName=f"at-{next(number)}", StartTime="2026-01-01T00:00:00Z",
            MinSize=low, MaxSize=min(10, low + wide), DesiredCapacity=wish,
        )  # fmt: skip
        self.scaling.minute = ""
        self.step(1)  # not left to the loop that runs beside

    @rule(which=st.integers(0, 9), how=st.sampled_from(["killed", "sick", "taken out"]))
    def one_is(self, which: int, how: str) -> None:
        with self.world.lock:
            ids = sorted(state.instance.id for state in self.alive())
        victim = ids[which % len(ids)]
        if how == "killed":
            self.account.client("ec2").terminate_instances(InstanceIds=[victim])
        elif how == "sick":
            self.api.set_instance_health(InstanceId=victim, HealthStatus="Unhealthy")
        else:
            with refused("below min"):
                self.api.terminate_instance_in_auto_scaling_group(
                    InstanceId=victim, ShouldDecrementDesiredCapacity=True
                )

    @rule(least=st.integers(50, 100), most=st.integers(100, 200))
    def all_are_replaced(self, least: int, most: int) -> None:
        preferences = {"MinHealthyPercentage": least, "MaxHealthyPercentage": most, "InstanceWarmup": 0}
        with refused("already in progress"):
            self.api.start_instance_refresh(AutoScalingGroupName=self.name, Preferences=preferences)

    @rule(zone=st.sampled_from(["us-east-1a", "us-east-1b"]))
    def a_zone_is_lost_and_comes_back(self, zone: str) -> None:
        self.world.suspended ^= {zone}

    @invariant()
    def it_comes_to_what_is_wished(self) -> None:
        if not self.name or self.world.suspended:
            return
        for _ in range(60):
            with self.world.lock:
                self.scaling.step()
                phases = [state.lifecycle_state for state in self.group.instance_states]
                if phases == ["InService"] * self.group.desired_capacity and not self.scaling._current(self.group):
                    return
        pytest.fail(f"{phases} with {self.group.desired_capacity} wished")


def test_a_group_keeps_its_bounds_and_comes_to_what_is_wished(cloud: Cloud) -> None:
    Fleet.account = Account(cloud)
    run_state_machine_as_test(Fleet, settings=settings(max_examples=10, stateful_step_count=20, deadline=None))
