"""Each test is an app of its own: its environment, its folder, its caches."""

import os
from pathlib import Path

import pytest

from app.core.settings import Settings, get_settings
from tests.unit.processes import forget


@pytest.fixture(autouse=True)
def _own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("PERGOLA_") or name in {"CREDENTIALS_DIRECTORY", "PROMETHEUS_MULTIPROC_DIR"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("PERGOLA_APP", "demo")
    monkeypatch.setenv("PERGOLA_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    forget()


@pytest.fixture
def settings() -> Settings:
    return get_settings()
