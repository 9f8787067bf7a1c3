"""The README of a role is what its argument_specs say."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.modules import loaded

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return loaded("scripts/role_readme.py")


@pytest.fixture
def project(generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a project with one small role, and make the generator work on it."""
    role = tmp_path / "roles" / "door"
    (role / "meta").mkdir(parents=True)
    (role / "defaults").mkdir()
    (role / "meta" / "main.yml").write_text(
        "galaxy_info: {description: A door, platforms: [{name: Debian, versions: [trixie]}]}\n", encoding="utf-8"
    )
    (role / "meta" / "argument_specs.yml").write_text(
        """
argument_specs:
  main:
    short_description: Hangs a door
    description: [Two kinds, '- C(wood) of an L(oak, https://example.org/oak)', '- B(steel)', In the end it closes.]
    options:
      door_kind: {type: str, choices: [wood, steel], description: 'What it is made of: a|b'}
      door_owner: {type: str, required: true, description: Whose it is.}
      door_keys:
        type: list
        elements: dict
        description: Who has keys.
        options: {name: {type: str, required: true, description: Who.}, spare: {type: bool, default: false, description: Second.}}
""",
        encoding="utf-8",
    )
    (role / "defaults" / "main.yml").write_text("door_kind: wood\ndoor_keys: []\n", encoding="utf-8")
    monkeypatch.setattr(generator, "ROOT", tmp_path)
    return role


def test_the_readme_of_every_role_is_up_to_date(generator: ModuleType) -> None:
    stale = [
        role.name
        for role in generator.roles()
        if not (role / "README.md").exists()
        or (role / "README.md").read_text(encoding="utf-8") != generator.render(role)
    ]
    assert stale == [], "run `make docs`"


def test_it_holds_every_variable_its_default_and_its_choices(generator: ModuleType, project: Path) -> None:
    text = generator.render(project)
    assert "# door\n" in text
    assert "Hangs a door." in text
    assert "Runs on Debian 13." in text
    assert "| `door_kind` | str: `wood`, `steel` | `wood` | What it is made of: a\\|b |" in text
    assert "| `door_owner` | str | **required** | Whose it is. |" in text
    assert "        door_owner: ...\n" in text
    assert "### `door_keys[]`" in text
    assert "| `spare` | bool | `false` | Second. |" in text


def test_it_reads_the_markup_of_ansible_doc(generator: ModuleType, project: Path) -> None:
    text = generator.render(project)
    assert "Two kinds\n\n- `wood` of an [oak](https://example.org/oak)\n- **steel**\n\nIn the end it closes." in text


def test_check_names_what_is_out_of_date_and_writes_nothing(
    generator: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["role_readme.py", "--check"])
    assert generator.main() == 1
    message = capsys.readouterr().err
    assert "roles/door/README.md" in message
    assert "make docs" in message
    assert not (project / "README.md").exists()

    monkeypatch.setattr(sys, "argv", ["role_readme.py"])
    assert generator.main() == 0
    monkeypatch.setattr(sys, "argv", ["role_readme.py", "--check"])
    assert generator.main() == 0


def test_a_role_without_specs_is_named(
    generator: ModuleType, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "meta" / "argument_specs.yml").unlink()
    monkeypatch.setattr(sys, "argv", ["role_readme.py"])
    assert generator.main() == 1
    assert "roles/door/meta/argument_specs.yml is missing" in capsys.readouterr().err
