"""Build the release of a whole site on the control node: all that a host needs to become what it shall be, without a control node.

It holds the bundles of its apps (``app.core.bundle``), the host plane (``playbooks/host.yml`` with its roles), what runs it
(ansible-core and the few modules of collections that the host plane uses, for the host's Python), and the bill of materials of all of
that (``app.core.sbom``). An index names each file with its key in the artefact bucket, its size and its sha256, and the variables of
``host.yml``. Every file is named by what is in it, so a key never changes its content, and a release that shares files with another
uploads only the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from app.core import bundle as bundles
from app.core import layers, sbom
from app.core.files import sha256_of, write_atomically
from app.core.manifest import Manifest
from app.core.site_index import named_files, sizes
from app.core.tools import BundleError, uv

KEYS = "releases"  # prefix of every key in the artefact bucket
_LEFT_OUT = ("cffi", "cryptography", "pycparser")  # ansible-core's vault, which no host opens
_MODULE = re.compile(r"\b(?!ansible\.builtin)(ansible\.posix|community\.\w+)\.(\w+)\b")
_INVENTORY = """---
pergola_hosts:
  hosts:
    localhost:
      ansible_connection: local
      ansible_python_interpreter: /usr/bin/python3
"""
_CONFIGURATION = """[defaults]
roles_path = roles
library = plugins/modules
callback_plugins = plugins/callback
stdout_callback = pergola
gathering = explicit
any_errors_fatal = True
"""


def build(  # noqa: PLR0913 - keywords, each a part of what a release holds
    root: Path,
    manifests: Sequence[Manifest],
    *,
    variables: Mapping[str, Any],
    secrets: Mapping[str, Mapping[str, str]],
    database: Mapping[str, Any] | None = None,
    out: Path,
    python: str,
    machine: str,
    check: bool = False,
) -> dict[str, Any]:
    """Build the release of a site.

    Args:
        root: Project folder.
        manifests: The apps of the site.
        variables: What ``playbooks/host.yml`` gets, with ``pergola_plan``; no secrets.
        secrets: By app and name, where the host finds each secret (Secrets Manager).
        database: How it gives its apps their databases on a server (``app.core.cloud.database.for_hosts``).
        out: Folder for the files; what is there already is used again.
        python: Python of the hosts as ``major.minor``, at least 3.12.
        machine: Their architecture.
        check: Only say what would be built.

    Returns:
        ``release`` (12 hex digits), ``key`` and ``sha256`` of the index, ``files`` (path, key, sha256, size), ``sizes`` (bytes by kind),
        ``changed``.

    Raises:
        BundleError: Something is missing; the message names it.
    """
    if tuple(map(int, python.split("."))) < (3, 12):
        msg = f"a host that configures itself needs Python 3.12 or later (Debian 13, Ubuntu 24.04), not {python}"
        raise BundleError(msg)
    out.mkdir(parents=True, exist_ok=True)
    built = [bundles.build(root, one, out=out, python=python, machine=machine, check=check) for one in manifests]
    host, fresh_host = _stored(out, "host", _host_plane(root), check=check)
    arch = bundles.architecture(machine)
    tool = _runner(root, out, python=python, arch=arch, check=check)
    parts = [
        *(
            sbom.Part(f"app/{one.app}", one.release, one.archive_sha256, [Path(row["archive"]) for row in one.layers])
            for one in built
        ),
        sbom.Part("host", _identity(host), sha256_of(host)),
        sbom.Part("self", _identity(tool.path), sha256_of(tool.path), [tool.path], tool.requirements, tool.collections),
    ]
    bill = sbom.build(root / "uv.lock", parts, python=python, machine=arch)
    bill_path = out / f"sbom-{hashlib.sha256(bill).hexdigest()[: bundles.ID_LENGTH]}.cdx.json"
    if not bill_path.is_file() and not check:
        write_atomically(bill_path, bill)
    index: dict[str, Any] = {
        "host": _entry(host),
        "self": _entry(tool.path),
        "sbom": _entry(bill_path),
        "bundles": [
            {"app": one.app, "release": one.release, "archive": _entry(Path(one.archive)),
             "layers": [{"id": layer["id"], **_entry(Path(layer["archive"]))} for layer in one.layers]}
            for one in built
        ],
        "vars": dict(variables),
        "secrets": {app: dict(names) for app, names in secrets.items()},
        "database": dict(database or {}),
    }  # fmt: skip
    content = json.dumps(index, sort_keys=True, indent=1, ensure_ascii=False).encode()
    sha256 = hashlib.sha256(content).hexdigest()
    path = out / f"site-{sha256[: bundles.ID_LENGTH]}.json"
    fresh = not path.is_file()
    if fresh and not check:
        write_atomically(path, content)
    files = {entry["key"]: {**entry, "path": str(out / Path(entry["key"]).name)} for entry in named_files(index)}
    last = {"key": f"{KEYS}/{path.name}", "sha256": sha256, "size": len(content), "path": str(path)}
    return {
        "release": sha256[: bundles.ID_LENGTH],
        "key": last["key"],
        "sha256": sha256,
        "files": [*files.values(), last],  # the index comes last: who finds it finds everything
        "sizes": sizes(index, len(content)),
        "changed": fresh or fresh_host or tool.fresh or any(one.changed for one in built),
    }


def _identity(path: Path) -> str:
    """Return the id in the name of an archive, ``<kind>-<id>.tar.gz``."""
    return path.name.removesuffix(".tar.gz").rpartition("-")[2]


def _entry(path: Path) -> dict[str, Any]:
    size = path.stat().st_size if path.is_file() else 0
    return {"key": f"{KEYS}/{path.name}", "sha256": sha256_of(path), "size": size}


def _stored(out: Path, kind: str, files: Mapping[str, tuple[bytes, bool]], *, check: bool) -> tuple[Path, bool]:
    """Return the archive of files, named by their content, and whether it was not there."""
    checksums = json.dumps(
        {name: [hashlib.sha256(content).hexdigest(), flag] for name, (content, flag) in sorted(files.items())}
    )
    path = out / f"{kind}-{hashlib.sha256(checksums.encode()).hexdigest()[: bundles.ID_LENGTH]}.tar.gz"
    fresh = not path.is_file()
    if fresh and not check:
        write_atomically(path, bundles.packed(dict(files)))
    return path, fresh


# ---------------------------------------------------------------- the host plane


def _roles(root: Path) -> list[str]:
    """Return the roles that ``host.yml`` applies."""
    plays = yaml.safe_load((root / "playbooks/host.yml").read_text(encoding="utf-8"))
    return [role["role"] if isinstance(role, dict) else role for play in plays for role in play.get("roles", [])]


def _host_plane(root: Path) -> dict[str, tuple[bytes, bool]]:
    """Return the files of the host plane: the playbook, its roles, the project's own plugins, and what begins on a host."""
    folders = [f"roles/{name}" for name in _roles(root)] + ["plugins/callback"]
    paths = [path for folder in folders for path in sorted((root / folder).rglob("*")) if path.is_file()]
    paths += [
        root / "playbooks/host.yml",
        *(root / f"plugins/modules/{name}.py" for name in ("file_set", "pergola_bundle")),
    ]
    files = {
        path.relative_to(root).as_posix(): (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        for path in paths
        if "__pycache__" not in path.parts and path.name != "README.md"
    }
    for name in ("databases.py", "instance.py", "user_data.py"):
        files[name] = ((root / "roles/aws_fleet/files" / name).read_bytes(), False)
    files["inventory.yml"] = (_INVENTORY.encode(), False)
    files["ansible.cfg"] = (_CONFIGURATION.encode(), False)
    return files


# ---------------------------------------------------------------- what runs it


@dataclass(frozen=True)
class _Runner:
    """What runs the host plane: its archive, whether that was not there, and what is in it."""

    path: Path
    fresh: bool
    requirements: str
    collections: Mapping[str, Mapping[str, Any]]


def _runner(root: Path, out: Path, *, python: str, arch: str, check: bool) -> _Runner:
    """Return the archive of ansible-core with its dependencies, and of the collections' modules that the host plane uses."""
    command = ["export", "--frozen", "--only-group=self", "--no-emit-project", "--no-header", "--no-annotate"]
    exported = bundles.pinned_lines(uv(command, cwd=root), python=python, machine=arch, where="uv.lock, group self")
    wanted = "".join(f"{line}\n" for line in exported.splitlines() if line.split("==")[0] not in _LEFT_OUT)
    collections = dict(_collections(root))
    names = {name: hashlib.sha256(content).hexdigest() for name, content in sorted(collections.items())}
    key = hashlib.sha256(json.dumps([python, arch, wanted, names]).encode()).hexdigest()[: bundles.ID_LENGTH]
    path = out / f"self-{key}.tar.gz"
    fresh = not path.is_file()
    if fresh and not check:
        with tempfile.TemporaryDirectory(dir=out, prefix=".layer-") as scratch:
            tree = Path(scratch, "packages")
            layers.install(wanted, tree, python=python, machine=arch)
            for name, content in collections.items():
                (tree / "ansible_collections" / name).parent.mkdir(parents=True, exist_ok=True)
                (tree / "ansible_collections" / name).write_bytes(content)
            layers.store(tree, path)
    about = {
        name.rpartition("/")[0].replace("/", "."): json.loads(content)["collection_info"]
        for name, content in collections.items()
        if name.endswith("/MANIFEST.json")
    }
    return _Runner(path, fresh, wanted, about)


def _collections(root: Path) -> Iterator[tuple[str, bytes]]:
    """Give the collections' modules that the host plane names, with the code that they share."""
    texts = [
        path.read_text(encoding="utf-8") for name in _roles(root) for path in (root / "roles" / name).rglob("*.yml")
    ]
    used = sorted({found for text in texts for found in _MODULE.findall(text)})
    for collection in sorted({name for name, _ in used}):
        base = _collection(collection)
        modules = [
            f"plugins/{kind}/{module}.py"
            for name, module in used
            if name == collection
            for kind in ("modules", "action")
        ]
        shared = [path.relative_to(base).as_posix() for path in (base / "plugins/module_utils").rglob("*.py")]
        for name in ("meta/runtime.yml", "MANIFEST.json", *modules, *sorted(shared)):
            with contextlib.suppress(FileNotFoundError):  # few modules have an action of the same name
                yield f"{collection.replace('.', '/')}/{name}", (base / name).read_bytes()


def _collection(name: str) -> Path:
    """Return the folder of an installed collection."""
    places = [
        Path(place, "ansible_collections") for place in sys.path
    ]  # in a module ansible_collections itself is Ansible's archive
    places += [
        Path.home() / ".ansible/collections/ansible_collections",
        Path("/usr/share/ansible/collections/ansible_collections"),
    ]
    for place in places:
        if (place / name.replace(".", "/") / "plugins").is_dir():
            return place / name.replace(".", "/")
    raise BundleError(
        f"the collection {name} is not installed; run `make venv`, or ansible-galaxy install -r requirements.yml"
    )
