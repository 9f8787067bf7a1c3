"""What an image is made with: databases of its own instead of the environment's, and none of it in the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text


@pytest.fixture
def builder(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give instance.py with its folders below the test's own one, and nothing that stops services or the machine."""
    data, secrets = tmp_path / "data", tmp_path / "secrets"
    monkeypatch.setattr(program, "DATA", data)
    monkeypatch.setattr(program, "SECRETS", secrets)
    monkeypatch.setattr(program, "OWN", (secrets,))
    monkeypatch.setattr(program, "HOME", tmp_path)
    monkeypatch.setattr(program, "MACHINE_ID", tmp_path / "machine-id")
    program.commands = []
    monkeypatch.setattr(program.subprocess, "run", lambda command, **_: program.commands.append(command))
    (tmp_path / "settings.json").write_text("{}")
    (data / "wine").mkdir(parents=True)
    return program


def test_an_image_is_made_with_databases_of_its_own_and_has_none(builder: Any) -> None:
    builder.stand_in_databases({"database": {"apps": {"wine": "a secret's name"}}})
    told = builder.SECRETS / "wine" / "database_url"
    assert told.stat().st_mode & 0o777 == 0o600
    with create_engine(told.read_text()).begin() as connection:
        connection.execute(text("CREATE TABLE planted (n INTEGER)"))
    (made,) = (builder.DATA / "wine").iterdir()
    (builder.DATA / "wine" / "model").write_text("trained while the image was made")
    builder.seal()
    assert [path.name for path in (builder.DATA / "wine").iterdir()] == ["model"]
    assert not made.exists()
    assert list(builder.SECRETS.iterdir()) == []
    assert builder.commands[-1][-1] == "poweroff"


@pytest.mark.parametrize("index", [{}, {"database": {}}, {"database": None}])
def test_an_environment_without_a_server_needs_none(builder: Any, index: dict[str, Any]) -> None:
    builder.stand_in_databases(index)
    assert not builder.SECRETS.exists()
