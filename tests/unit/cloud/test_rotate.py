"""The password of the backups is no secret to rotate: another value would open nothing that is kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

ROOT = Path(__file__).resolve().parents[3]
NAME = "pergola-demo/backup/password"


def test_the_password_of_the_backups_stays_as_it_is(tmp_path: Path) -> None:
    own = tmp_path / f"demo-{os.getpid()}"  # an inventory has one run at a time, known by its folder's name
    shutil.copytree(ROOT / "inventories" / "demo", own)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        address, port = server.get_host_and_port()
        keys = {
            "AWS_ACCESS_KEY_ID": "any",
            "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_ENDPOINT_URL": f"http://{address}:{port}",
        }
        manager = boto3.client(
            "secretsmanager", region_name="us-east-1", endpoint_url=keys["AWS_ENDPOINT_URL"],
            aws_access_key_id="any", aws_secret_access_key="any",
        )  # fmt: skip
        manager.create_secret(Name=NAME, SecretString="as it was")
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "playbooks/rotate.yml", "-i", str(own),
             "-e", "secret=backup/password"],
            cwd=ROOT, env={**os.environ, **keys}, capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode != 0
        assert "opens every backup that there is" in done.stdout, done.stdout + done.stderr
        assert manager.get_secret_value(SecretId=NAME)["SecretString"] == "as it was"
    finally:
        server.stop()
