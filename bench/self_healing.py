"""How an environment heals itself: hosts killed and wedged, a zone lost, load that grows, and how fast new hosts serve.

    python bench/self_healing.py                      an environment of its own, made and removed again
    python bench/self_healing.py --apps portal        with fewer apps
    python bench/self_healing.py --parts kill,wedge   only these of: kill, wedge, zone, load, baked

Every fault happens under load (requests through the balancer, new connections and kept ones). Seconds are real seconds; health checks,
grace and scaling run `--speed` times faster than on AWS, boots do not. "Detected": the balancer sends nothing more to the host.
"Recovered": as many hosts as before are healthy. Nothing here connects to a host but to burn its processor.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from bench.environment import Environment, say  # noqa: E402 - the project's folder must be on the path first
from prober.process import ProbeProcess  # noqa: E402
from prober.report import table  # noqa: E402

NAME, HTTPS, HTTP, PORT = "rehearsal-bench", 29743, 29780, 29770
GROUP = "pergola-rehearsal-main-blue"
PARTS = ("kill", "wedge", "zone", "load", "baked")


def load(site: Environment) -> tuple[float, float]:
    """Burn the processors until the group grows, then let it shrink; return the seconds of both."""
    before = len(site.healthy())
    for instance in site.healthy():
        burn = ["docker", "exec", "-d", f"{NAME}-{instance}", "timeout", "300", "sh", "-c", "while :; do :; done"]
        subprocess.run(burn, check=True)

    def desired() -> int:
        found = site.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
        group = found["AutoScalingGroups"][0]
        if (
            not group["MinSize"]
            <= len([i for i in group["Instances"] if i["LifecycleState"] == "InService"])
            <= group["MaxSize"]
        ):
            say("outside its bounds")
        return int(group["DesiredCapacity"])

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
    subnet = site.client("autoscaling").describe_auto_scaling_groups(AutoScalingGroupNames=[GROUP])
    made = ec2.run_instances(
        ImageId=data["ImageId"], InstanceType=data["InstanceType"], MinCount=1, MaxCount=1, UserData=script,
        SubnetId=subnet["AutoScalingGroups"][0]["VPCZoneIdentifier"].split(",")[0], SecurityGroupIds=data["SecurityGroupIds"],
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
    try:
        say("an environment from nothing")
        site.run("scripts/rehearse", "down")
        rows.append(["make up: from nothing to a page", "-", f"{site.up():.0f}", "-", "-"])
        rows.append(["one more host, image with packages", "-", f"{launch(site):.0f}", "-", "-"])
        if "baked" in parts:
            settings = site.settings()
            settings["fleets"][0] |= {"image": bake(site), "grace_seconds": 60}
            say("the fleet moves to the baked image")
            site.up(pergola_cloud=settings)
            rows.append(["one more host, baked image", "-", f"{launch(site):.0f}", "-", "-"])
        for part in [part for part in parts if part != "baked"]:
            say(part)
            with ProbeProcess(
                f"https://127.0.0.1:{HTTPS}", f"--rate={options.rate}", "--get=/health", "--post=", "--sessions=0"
            ) as probe:
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
            rows.append([what, f"{first:.0f}", f"{second:.0f}", report["sent"], report["failed"]])
    finally:
        site.run("scripts/rehearse", "down")
    print(table(["what", "detected s", "recovered s", "requests", "failed"], rows))
    print(
        f"real seconds; health checks, grace and scaling {options.speed:g} times as fast as on AWS; apps: {options.apps}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
