"""What a release of a site consists of, as a CycloneDX 1.6 bill of materials (https://cyclonedx.org/docs/1.6/json/).

Made from the lock file and from what the packages say of themselves once they are installed in their layer. The same release gives the
same bytes: there is no time in it, and its serial number is derived from its content.
"""

from __future__ import annotations

import json
import re
import tarfile
import tomllib
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from email.parser import HeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.tags import Tag, parse_tag
from packaging.utils import canonicalize_name, parse_wheel_filename

from app.core import assets
from app.core.files import write_atomically

Component = dict[str, Any]
_SITE = "site"
_METADATA = re.compile(r"^[^/]+\.dist-info/(METADATA|WHEEL)$")
_NAME_LENGTH = 100  # some packages have the whole text of their licence where its name belongs


@dataclass(frozen=True)
class Part:
    """Something of a release that has packages: an app, or what runs the host plane.

    Attributes:
        name: Its name.
        version: Its release.
        sha256: Checksum of its own archive.
        packages: Archives with installed packages.
        requirements: Their locked requirements (one pin with its hashes a line), where the archives do not hold them themselves.
        collections: Ansible collections of which it holds modules: by name, their ``collection_info``.
    """

    name: str
    version: str
    sha256: str
    packages: Sequence[Path] = ()
    requirements: str = ""
    collections: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def build(lock: Path, parts: Iterable[Part], *, python: str, machine: str) -> bytes:
    """Return the bill of materials of a release.

    Args:
        lock: ``uv.lock``, which knows the wheel behind a hash.
        parts: What the release holds.
        python: Python of the hosts, ``major.minor``.
        machine: Their architecture, as wheels call it.
    """
    wheels, components, dependencies = _wheels(lock), dict[str, Component](), dict[str, list[str]]()
    for part in parts:
        own = [one for path in part.packages for one in _packages(path, part.requirements, wheels)]
        own += [_collection(name, about) for name, about in sorted(part.collections.items())]
        ref = f"part:{part.name}"
        components[ref] = {
            "type": "application",
            "bom-ref": ref,
            "name": part.name,
            "version": part.version,
            "hashes": _hashes([part.sha256]),
        }
        components |= {component["bom-ref"]: component for component in own}
        dependencies[ref] = sorted({component["bom-ref"] for component in own})
    dependencies[_SITE] = sorted(dependencies)
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "component": {"type": "application", "bom-ref": _SITE, "name": "site"},
            "properties": [{"name": "pergola:machine", "value": machine}, {"name": "pergola:python", "value": python}],
        },
        "components": [components[ref] for ref in sorted(components)],
        "dependencies": [{"ref": ref, "dependsOn": needs} for ref, needs in sorted(dependencies.items())],
    }
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, content).urn
    return json.dumps(document, sort_keys=True, indent=1, ensure_ascii=False).encode()


def _wheels(lock: Path) -> dict[str, str]:
    """Return the file name of each wheel of a lock file by its sha256."""
    packages = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    rows = [row for package in packages for row in package.get("wheels", ())]
    return {row["hash"].removeprefix("sha256:"): row["url"].rpartition("/")[2] for row in rows if "url" in row}


# ---------------------------------------------------------------- packages


def _packages(archive: Path, requirements: str, wheels: Mapping[str, str]) -> Iterator[Component]:
    """Give a component for each locked requirement of an archive, with what the installed package says of itself."""
    found = installed(archive)
    said = found["packages"]
    for line in (requirements or found["requirements"]).splitlines():
        pin, *hashes = line.split()
        name, _, version = pin.partition("==")
        digests = [value.removeprefix("--hash=sha256:") for value in hashes]
        about = said.get(name, {})
        component: Component = {"type": "library", "name": name, "version": version}
        component["purl"] = f"pkg:pypi/{name}@{quote(version, safe='.')}"
        if model := next((one for one in assets.RECIPES.values() if one.pin.partition("==")[0] == name), None):
            component |= _model(model)
        component["bom-ref"] = component["purl"]
        component["hashes"] = _hashes(_installed_one(digests, about.get("tags", []), wheels))
        if about.get("licenses"):
            component["licenses"] = about["licenses"]
        yield component


def _model(recipe: assets.Recipe) -> Component:
    """Return what is different about an asset: it is no package of PyPI, but is made from one."""
    source = f"pkg:pypi/{recipe.package}@{recipe.version}"
    ancestor = {"type": "library", "name": recipe.package, "version": recipe.version, "purl": source}
    return {
        "type": "machine-learning-model",
        "purl": f"pkg:generic/{recipe.pin.partition('==')[0]}@{recipe.version}",
        "pedigree": {"ancestors": [{**ancestor, "hashes": _hashes([recipe.source_sha256])}]},
    }


def _installed_one(digests: list[str], tags: Sequence[str], wheels: Mapping[str, str]) -> list[str]:
    """Return the hash of the wheel that was installed; all that the lock allows where it does not tell which one that was."""
    wanted: set[Tag] = {tag for text in tags for tag in parse_tag(text)}
    same = [one for one in digests if one in wheels and wanted == parse_wheel_filename(wheels[one])[3]]
    return same if len(same) == 1 else digests


def _hashes(digests: Iterable[str]) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest} for digest in sorted(digests) if digest]


def installed(archive: Path) -> dict[str, Any]:
    """Return what an archive holds: ``requirements``, and ``packages`` by name with ``licenses`` (as CycloneDX has them) and ``tags``.

    Reading a large archive takes seconds, so the answer is kept beside it; an archive is named by its content and never changes.
    """
    if not archive.is_file():
        return {"requirements": "", "packages": {}}
    kept = archive.with_name(f"{archive.name}.packages.json")
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    texts, requirements = dict[str, dict[str, Message]](), ""
    with tarfile.open(archive) as tar:
        for member in tar:
            if (found := _METADATA.match(member.name)) and (stream := tar.extractfile(member)):
                text = stream.read().decode("utf-8", errors="replace")
                texts.setdefault(member.name.partition("/")[0], {})[found[1]] = HeaderParser().parsestr(text)
            elif member.name == "requirements.txt" and (stream := tar.extractfile(member)):
                requirements = stream.read().decode()
    packages = {
        str(canonicalize_name(str(files["METADATA"]["Name"]))): {
            "licenses": _licenses(files["METADATA"]),
            "tags": files["WHEEL"].get_all("Tag", []) if "WHEEL" in files else [],
        }
        for files in texts.values()
        if "METADATA" in files
    }
    said: dict[str, Any] = {"requirements": requirements, "packages": packages}
    write_atomically(kept, json.dumps(said, sort_keys=True).encode())
    return said


def _licenses(metadata: Message) -> list[dict[str, Any]]:
    """Return a package's licence: its SPDX expression, else what it calls its licence, else its classifiers."""
    for header in ("License-Expression", "License"):
        text = str(metadata.get(header, "")).strip()
        if text and "\n" not in text and len(text) <= _NAME_LENGTH:
            try:
                return [{"expression": canonicalize_license_expression(text)}]
            except InvalidLicenseExpression:
                return [{"license": {"name": text}}]
    classified = [row.split(" :: ") for row in metadata.get_all("Classifier", []) if row.startswith("License :: ")]
    return [
        {"license": {"name": name}} for name in sorted({row[-1] for row in classified if row[-1] != "OSI Approved"})
    ]


def _collection(name: str, about: Mapping[str, Any]) -> Component:
    purl = f"pkg:generic/{name}@{about['version']}"
    licenses = [{"license": {"name": text}} for text in about.get("license") or ()]
    component = {"type": "library", "bom-ref": purl, "name": name, "version": about["version"], "purl": purl}
    return {**component, "licenses": licenses} if licenses else component
