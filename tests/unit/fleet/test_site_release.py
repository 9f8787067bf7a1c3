"""The release of a site: everything a host needs, named by content, checked, and without a secret."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from app.core import bundle, layers, manifest, site_index, site_release

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand in for what is downloaded: small packages."""

    def install(requirements: str, tree: Path, **_: Any) -> None:
        for line in requirements.splitlines():
            name, version = line.split()[0].split("==")
            (tree / name).mkdir(parents=True)
            (tree / name / "__init__.py").write_text(f"# {version}\n")

    monkeypatch.setattr(layers, "install", install)


def build(out: Path, **options: Any) -> dict[str, Any]:
    given = {
        "python": "3.13",
        "machine": "x86_64",
        "variables": {"pergola_health": "/health"},
        "secrets": {},
        **options,
    }
    return site_release.build(ROOT, manifest.load_all(ROOT, ["portal"]), out=out, **given)


@pytest.fixture
def built(tmp_path: Path) -> dict[str, Any]:
    """Give a release that was built."""
    return build(tmp_path)


def test_the_index_names_every_file_with_its_checksum(built: dict[str, Any]) -> None:
    files = {file["key"]: file for file in built["files"]}
    assert built["files"][-1]["key"] == built["key"], "who finds the index finds everything"
    for file in files.values():
        content = Path(file["path"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert len(content) == file["size"]
    index = json.loads(Path(files[built["key"]]["path"]).read_text())
    named = [index["host"], index["self"], index["sbom"]]
    for one in index["bundles"]:
        named += [one["archive"], *one["layers"]]
    assert site_index.named_files(index) == [{key: entry[key] for key in ("key", "sha256", "size")} for entry in named]
    assert {entry["key"] for entry in named} | {built["key"]} == set(files)
    assert [one["app"] for one in index["bundles"]] == ["portal"]


def test_the_same_content_has_the_same_keys(built: dict[str, Any], tmp_path: Path) -> None:
    again = build(tmp_path)
    assert (again["key"], again["changed"]) == (built["key"], False)
    other = build(tmp_path, variables={"pergola_health": "/wine/api/health"})
    assert other["key"] != built["key"]
    assert [file["key"] for file in other["files"][:-1]] == [file["key"] for file in built["files"][:-1]]


def test_the_bill_of_materials_names_all_that_is_in_it(built: dict[str, Any]) -> None:
    (path,) = (Path(file["path"]) for file in built["files"] if "/sbom-" in file["key"])
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(path.read_text()) is None
    found = {component["name"]: component for component in json.loads(path.read_text())["components"]}
    archives = {Path(file["path"]).name.partition("-")[0]: file["sha256"] for file in built["files"]}
    for name, kind in (("app/portal", "portal"), ("host", "host"), ("self", "self")):
        assert found[name]["hashes"][0]["content"] == archives[kind]
    locked = {
        line.split("==")[0]
        for layer in bundle.locked_layers(ROOT, manifest.load_all(ROOT, ["portal"])[0], python="3.13", machine="x86_64")
        for line in layer.requirements.splitlines()
    }
    assert locked
    assert locked | {"ansible-core", "ansible.posix", "community.general"} <= set(found)
    assert found["fastapi"]["purl"] == f"pkg:pypi/fastapi@{found['fastapi']['version']}"


def test_its_size_is_told_by_kind(built: dict[str, Any]) -> None:
    assert sum(built["sizes"].values()) == sum(file["size"] for file in built["files"])
    assert all(built["sizes"].values())


def test_the_index_of_an_older_release_has_no_bill_of_materials(built: dict[str, Any]) -> None:
    index = json.loads(Path(built["files"][-1]["path"]).read_text())
    older = {key: value for key, value in index.items() if key != "sbom"}
    assert len(site_index.named_files(older)) == len(site_index.named_files(index)) - 1


def test_the_host_plane_is_whole(built: dict[str, Any]) -> None:
    with tarfile.open(next(file["path"] for file in built["files"] if "/host-" in file["key"])) as tar:
        names = set(tar.getnames())
    for name in (
        "instance.py",
        "user_data.py",
        "ansible.cfg",
        "inventory.yml",
        "playbooks/host.yml",
        "plugins/modules/file_set.py",
    ):
        assert name in names
    for role in ("baseline", "nginx", "apps", "postgresql", "backup"):
        assert f"roles/{role}/tasks/main.yml" in names
    assert not [name for name in names if name.startswith("roles/aws_")]


def test_what_runs_it_has_the_modules_that_the_roles_name(built: dict[str, Any]) -> None:
    with tarfile.open(next(file["path"] for file in built["files"] if "/self-" in file["key"])) as tar:
        names = set(tar.getnames())
    assert "ansible-core/__init__.py" in names
    assert "cryptography/__init__.py" not in names
    for name in (
        "community/general/plugins/modules/listen_ports_facts.py",
        "ansible/posix/plugins/modules/authorized_key.py",
    ):
        assert f"ansible_collections/{name}" in names
    assert len([name for name in names if "community/general/plugins/modules/" in name]) == 1


def test_a_preview_writes_nothing(tmp_path: Path) -> None:
    assert build(tmp_path / "out", check=True)["changed"]
    assert list(tmp_path.rglob("*.tar*")) == []


def test_a_host_with_an_old_python_is_refused(tmp_path: Path) -> None:
    with pytest.raises(bundle.BundleError, match=r"needs Python 3\.12 or later .* not 3\.11"):
        build(tmp_path, python="3.11")
