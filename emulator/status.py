"""What there is in the account, for whoever looks at the rehearsal."""

from __future__ import annotations

from typing import Any

from emulator.world import World


def status(world: World) -> dict[str, Any]:
    """Return what there is, by kind: a row each, with the columns of a table."""
    with world.lock:
        groups = world.backend("autoscaling").autoscaling_groups.values()
        phases = {s.instance.id: s.lifecycle_state for g in groups for s in g.instance_states}
        instances = [
            {"instance": i.id, "address": i.private_ip, "zone": i.placement.zone, "state": phases.get(i.id, i.state),
             "health": {a.split("/")[-2]: h.state for (a, t), h in world.health.items() if t == i.id},
             "cpu": world.metrics.get(i.id)}
            for i in world.backend("ec2").all_instances() if i.state != "terminated"
        ]  # fmt: skip
        scaling = [
            {"group": g.name, "min": g.min_size, "desired": g.desired_capacity, "max": g.max_size,
             "in service": len(g.active_instances())} for g in groups
        ]  # fmt: skip
        balancers = [
            {
                "balancer": b.name,
                "dns": b.dns_name,
                "address": world.addresses.get(b.arn),
                "url": f"https://127.0.0.1:{world.settings.ports(n)[443]}",
            }
            for n, b in enumerate(world.backend("elbv2").load_balancers.values())
        ]
        databases = [
            {
                "database": d.db_instance_identifier,
                "state": d.status,
                "address": world.addresses.get(d.db_instance_identifier),
            }
            for d in world.backend("rds").databases.values()
        ]
        alarms = [{"alarm": a.name, "state": a.state_value} for a in world.backend("cloudwatch").alarms.values()]
    mail = len(list((world.settings.directory / "mail").glob("*.eml")))
    return {"endpoint": world.settings.endpoint, "speed": world.settings.speed,
            "instances": instances, "groups": scaling, "balancers": balancers,
            "databases": databases, "alarms": alarms, "mail": mail, "faults": world.faults, "problems": world.problems,
            "events": world.events[-15:]}  # fmt: skip
