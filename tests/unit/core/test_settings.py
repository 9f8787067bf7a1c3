"""Settings and secrets."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic_settings import SettingsConfigDict

from app.core.settings import Settings, SettingsError, clear_settings, get_settings, secret

ROOT = Path(__file__).resolve().parents[3]


def test_a_laptop_needs_no_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERGOLA_STATE_DIR")
    settings = get_settings()
    assert settings.app == "demo"
    assert settings.state_dir == tmp_path / "build" / "state" / "demo"
    assert settings.storage == f"file://{tmp_path}/build/state/demo/storage"
    assert settings.database_url == f"sqlite:///{tmp_path}/build/state/demo/demo.db"
    assert (settings.base_path, settings.api_prefix, settings.slot, settings.env) == ("/demo/", "", "", "local")
    assert settings.api_socket is None
    assert not settings.on_host


def test_a_host_sets_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "SLOT": "b",
        "RELEASE": "r7",
        "ENV": "production",
        "BASE_PATH": "/wine",
        "API_PREFIX": "/wine/api/",
        "STORAGE": "s3://bucket/wine",
        "DATABASE_URL": "postgresql+psycopg2:///x",
        "API_SOCKET": "/run/pergola/sock/wine-b.api.sock",
    }.items():
        monkeypatch.setenv(f"PERGOLA_{name}", value)
    settings = get_settings()
    assert settings.on_host
    assert (settings.base_path, settings.api_prefix) == ("/wine/", "/wine/api")
    assert settings.storage == "s3://bucket/wine"
    assert settings.api_socket == Path("/run/pergola/sock/wine-b.api.sock")


def test_a_postgresql_may_be_named_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HOST": "db.example",
        "PORT": "5433",
        "NAME": "annotations",
        "USER": "ava",
        "PASSWORD": "p@ss/w:rd",
    }.items():
        monkeypatch.setenv(f"DB_{name}", value)
    clear_settings()
    settings = get_settings()
    assert settings.database_url == "postgresql+psycopg2://ava:p%40ss%2Fw%3Ard@db.example:5433/annotations"
    assert "p@ss" not in repr(settings.model_dump())
    monkeypatch.setenv("PERGOLA_DATABASE_URL", "sqlite:////x.db")
    clear_settings()
    assert get_settings().database_url == "sqlite:////x.db"  # the platform's word counts
    monkeypatch.setenv("DB_PORT", "99999999")
    clear_settings()
    with pytest.raises(SettingsError, match="DB_PORT"):
        get_settings()


def test_the_app_at_the_root_has_the_path_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_BASE_PATH", "/")
    assert get_settings().base_path == "/"


def test_an_empty_variable_means_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_API_SOCKET", "")
    monkeypatch.setenv("PERGOLA_STORAGE", "")
    assert get_settings().api_socket is None
    assert get_settings().storage.startswith("file:///")


def test_a_wrong_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_LOG_LEVEL", "LOUD")
    with pytest.raises(SettingsError, match=r"PERGOLA_LOG_LEVEL.*'WARNING'"):
        get_settings()


def test_an_environment_has_the_name_that_its_inventory_gives_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERGOLA_ENV", "demo")
    assert get_settings().env == "demo"
    clear_settings()
    monkeypatch.setenv("PERGOLA_ENV", "No Name")
    with pytest.raises(SettingsError, match="PERGOLA_ENV"):
        get_settings()


def test_an_apps_own_settings_have_their_own_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    class WineSettings(Settings):
        model_config = SettingsConfigDict(env_prefix="WINE_")
        top_k: int = 3

    monkeypatch.setenv("WINE_TOP_K", "5")
    settings = get_settings(WineSettings)
    assert (settings.top_k, settings.app) == (5, "demo")
    assert get_settings(WineSettings) is settings


def test_dotenv_is_read_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("PERGOLA_RELEASE=from-file\nPERGOLA_ENV=staging\nOTHER=1\n")
    monkeypatch.setenv("PERGOLA_ENV", "rehearsal")
    clear_settings()
    assert (get_settings().release, get_settings().env) == ("from-file", "rehearsal")


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "app.wine.train"],
        ["-c", "pass", "app.wine.api:app"],
        ["-c", "pass", "app/wine/ui.py"],
    ],
)
def test_the_app_is_told_from_the_command(command: list[str], tmp_path: Path) -> None:
    package = tmp_path / "app" / "wine"
    package.mkdir(parents=True)
    show = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom app.core.settings import Settings\nprint(Settings().app)\n"
    program = f"import sys; sys.orig_argv = ['python', *{command!r}]\n{show}" if command[0] == "-m" else show
    done = subprocess.run(
        [sys.executable, "-c", program, *command[2:]], capture_output=True, text=True, check=True, cwd=tmp_path, env={}
    )
    assert done.stdout.strip() == "wine"


def test_a_secret_comes_from_credentials_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert secret("admin_password") is None
    (tmp_path / ".env").write_text("PERGOLA_SECRET_ADMIN_PASSWORD=from-file\n")
    assert secret("admin_password") == "from-file"
    monkeypatch.setenv("PERGOLA_SECRET_ADMIN_PASSWORD", "from-environment")
    assert secret("admin_password") == "from-environment"
    (tmp_path / "admin_password").write_text(" from credentials \n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert secret("admin_password") == " from credentials "


@pytest.mark.parametrize("name", ["../shadow", "", "A", "a/b", "a.b"])
def test_a_secret_cannot_be_a_path(name: str) -> None:
    with pytest.raises(SettingsError, match="lower-case letters"):
        secret(name)
