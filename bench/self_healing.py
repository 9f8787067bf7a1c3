"""How an environment heals itself: hosts killed and wedged, a zone lost, load that grows, and how fast new hosts serve.

    python bench/self_healing.py                      an environment of its own, made and removed again
    python bench/self_healing.py --apps portal        with fewer apps
    python bench/self_healing.py --parts kill,wedge   only these of: kill, wedge, zone, load, baked

Every fault happens under load (requests through the balancer, new connections and kept ones). Seconds are real seconds; health checks,
grace and scaling run `--speed` times faster than on AWS, boots do not. "Detected": the balancer sends nothing more to the host.
"Recovered": as many hosts as before are healthy. "Hosts": fewest and most of the group that were there or on their way, of what it may
have. Nothing here connects to a host but to burn its processor. Ends with 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.bars import Bars  # noqa: E402 - the project's folder must be on the path first
from bench.environment import Environment, say  # noqa: E402 - the project's folder must be on the path first
from prober.process import ProbeProcess  # noqa: E402
from prober.report import table  # noqa: E402

NAME, HTTPS, HTTP, PORT = "rehearsal-bench", 29743, 29780, 29770
GROUP = "pergola-rehearsal-main-blue"
PARTS = ("kill", "wedge", "zone", "load", "baked")


def group(site: Environment) -> dict[str, Any]:
    """Return what AWS says of the scaling group."""
    found = site.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
    return dict(found["AutoScalingGroups"][0])


class Sizes:
    """How many hosts a group had meanwhile, and whether that was ever more or fewer than it may have; looked at four times a second."""

    def __init__(self, site: Environment) -> None:
        self.site, self.seen, self.outside, self.over = site, set[int](), 0, threading.Event()
        self.bounds = ""

    def __enter__(self) -> Self:
        self.thread = threading.Thread(target=self._look, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.over.wait(0.25):
            now = group(self.site)
            count = sum(not row["LifecycleState"].startswith("Terminating") for row in now["Instances"])
            low, high = int(now["MinSize"]), int(now["MaxSize"])
            self.seen.add(count)
            self.outside += not low <= count <= high or not low <= now["DesiredCapacity"] <= high
            self.bounds = f"{low}-{high}"

    def __str__(self) -> str:
        return f"{min(self.seen)}-{max(self.seen)} of {self.bounds}"


def load(site: Environment) -> tuple[float, float]:
    """Burn the processors until the group grows, then let it shrink; return the seconds of both."""
    before = len(site.healthy())
    for instance in site.healthy():
        burn = ["docker", "exec", "-d", f"{NAME}-{instance}", "timeout", "300", "sh", "-c", "while :; do :; done"]
        subprocess.run(burn, check=True)

    def desired() -> int:
        return int(group(site)["DesiredCapacity"])

    out = site.until(lambda: desired() > before, "scaling out")
    out += site.until(lambda: len(site.healthy()) > before, "the new host")
    return out, site.until(lambda: desired() == before, "scaling in", seconds=1800)


def bake(site: Environment) -> str:
    """Make an image of a host that configured itself and was sealed; return its id."""
    ec2 = site.client("ec2")
    found = ec2.describe_launch_template_versions(LaunchTemplateName=GROUP, Versions=["$Latest"])[
        "LaunchTemplateVersions"
    ][0]
    data = found["LaunchTemplateData"]
    script = base64.b64decode(data["UserData"]).decode().replace('"launch_hook": "serve"', '"bake": true')
    made = ec2.run_instances(
        ImageId=data["ImageId"], InstanceType=data["InstanceType"], MinCount=1, MaxCount=1, UserData=script,
        SubnetId=group(site)["VPCZoneIdentifier"].split(",")[0], SecurityGroupIds=data["SecurityGroupIds"],
        IamInstanceProfile=data["IamInstanceProfile"],
        MetadataOptions={"HttpTokens": "required", "HttpEndpoint": "enabled"},
    )["Instances"][0]["InstanceId"]  # fmt: skip

    def state(key: str = made) -> str:
        return str(ec2.describe_instances(InstanceIds=[key])["Reservations"][0]["Instances"][0]["State"]["Name"])

    say(f"baking: {made} configures itself, seals itself and powers off")
    site.until(lambda: state() == "stopped", "the sealed host")
    image = str(ec2.create_image(InstanceId=made, Name="baked")["ImageId"])
    site.until(lambda: ec2.describe_images(ImageIds=[image])["Images"][0]["State"] == "available", "the image")
    ec2.terminate_instances(InstanceIds=[made])
    return image


def launch(site: Environment) -> float:
    """Ask for one more host and return the seconds until it is healthy; the extra one goes again."""
    before = len(site.healthy())
    site.resize(GROUP, before + 1)
    seconds = site.until(lambda: len(site.healthy()) > before, "one more host")
    site.resize(GROUP, before)
    site.until(lambda: len(site.healthy()) == before, "the end of the extra host")
    return seconds


def arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--apps", default="portal,wine", help="comma-separated (default %(default)s)")
    parser.add_argument("--parts", default=",".join(PARTS), help="comma-separated (default: all)")
    parser.add_argument("--speed", type=float, default=10, help="cloud seconds in one of ours (default %(default)s)")
    parser.add_argument("--rate", type=float, default=10, help="requests a second (default %(default)s)")
    return parser.parse_args()


def main() -> int:
    """Break everything once and print what it cost."""
    options = arguments()
    parts = options.parts.split(",")
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"bench: no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    site = Environment(NAME, options.apps.split(","), options.speed, https=HTTPS, http=HTTP, port=PORT)
    rows: list[list[object]] = []
    bars = Bars()
    try:
        say("an environment from nothing")
        site.run("scripts/rehearse", "down")
        rows.append(["make up: from nothing to a page", "-", f"{site.up():.0f}", "-", "-", "-"])
        bare = launch(site)
        bars.hold("seconds from launch to healthy, image with packages", round(bare), 180)
        rows.append(["one more host, image with packages", "-", f"{bare:.0f}", "-", "-", "-"])
        if "baked" in parts:
            settings = site.settings()
            settings["fleets"][0] |= {"image": bake(site), "grace_seconds": 60}
            say("the fleet moves to the baked image")
            site.up(pergola_cloud=settings)
            baked = launch(site)
            bars.hold("seconds from launch to healthy, baked image", round(baked), 30)
            rows.append(["one more host, baked image", "-", f"{baked:.0f}", "-", "-", "-"])
        for part in [part for part in parts if part != "baked"]:
            say(part)
            visits = (f"--rate={options.rate}", "--get=/health", "--post=", "--sessions=0")
            with Sizes(site) as sizes, ProbeProcess(f"https://127.0.0.1:{HTTPS}", *visits) as probe:
                time.sleep(3)
                first, second = load(site) if part == "load" else site.hurt(part)
                time.sleep(3)
                report = probe.stop()
            what = {
                "kill": "host killed",
                "wedge": "host wedged",
                "zone": "zone lost",
                "load": "load: out, and back in",
            }[part]
            rows.append([what, f"{first:.0f}", f"{second:.0f}", report["sent"], report["failed"], str(sizes)])
            bars.hold(f"{what}: moments with more or fewer hosts than allowed", sizes.outside, 0)
            if part == "kill" and "baked" in parts:
                bars.hold("seconds from a host's death to as many healthy ones", round(second), 60)
    finally:
        site.run("scripts/rehearse", "down")
    print(table(["what", "detected s", "recovered s", "requests", "failed", "hosts"], rows))
    print(
        f"real seconds; health checks, grace and scaling {options.speed:g} times as fast as on AWS; apps: {options.apps}"
    )
    print(table(["goal", "found", "bar", ""], bars.rows))
    return 1 if bars.missed else 0


if __name__ == "__main__":
    sys.exit(main())
