"""Settings and secrets of the running app.

Every value has a default that works on a laptop; on a host systemd sets the `PERGOLA_*` variables.
An app's own settings subclass `Settings`:

    class WineSettings(Settings):
        model_config = SettingsConfigDict(env_prefix="WINE_")
        top_k: int = 3            # read from WINE_TOP_K

    settings = get_settings(WineSettings)
"""

import os
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

from dotenv import dotenv_values
from pydantic import AliasChoices, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL

ENV_FILE = Path(".env")
_DATABASE_SECRET = "database_url"  # noqa: S105 - its name: the plan gives it to apps whose database is on a server

_APP_IN_MODULE = re.compile(r"^app\.(?!core\b)([a-z][a-z0-9_-]*)(?:[.:]|$)")
_APP_IN_COMMAND = re.compile(r"(?:^|/)app[./](?!core\b)([a-z][a-z0-9_-]*)[./:]")
_SECRET_NAME = re.compile(r"[a-z][a-z0-9_]*")


class SettingsError(Exception):
    """A setting is wrong; the message names the variable and what it expects."""


def _name(field: str) -> AliasChoices:
    """The variable of a core field, whatever prefix a subclass uses for its own."""
    return AliasChoices(f"PERGOLA_{field.upper()}", field)


class Settings(BaseSettings):
    """What the platform tells a process about itself.

    Paths are absolute, `base_path` begins and ends with a slash, `api_prefix` has no slash at its end.
    """

    model_config = SettingsConfigDict(
        env_file=ENV_FILE, env_file_encoding="utf-8", extra="ignore", populate_by_name=True
    )

    app: str = Field(default="", validation_alias=_name("app"), description="name of the app: its folder in app/")
    slot: str = Field(default="", validation_alias=_name("slot"), description="a or b on a host, empty elsewhere")
    release: str = Field(default="dev", validation_alias=_name("release"), description="id of the release being served")
    env: str = Field(
        default="local",
        pattern=r"^[a-z][a-z0-9-]{0,30}$",
        validation_alias=_name("env"),
        description="name of the environment, such as production",
    )
    base_path: str = Field(
        default="", validation_alias=_name("base_path"), description="where the app is mounted: /wine/"
    )
    api_prefix: str = Field(
        default="", validation_alias=_name("api_prefix"), description="what nginx strips: /wine/api"
    )
    state_dir: Path = Field(
        default=Path(), validation_alias=_name("state_dir"), description="the app's writable folder"
    )
    storage: str = Field(
        default="", validation_alias=_name("storage"), description="file:///folder or s3://bucket/prefix"
    )
    database_url: str = Field(
        default="",
        validation_alias=_name("database_url"),
        description="SQLAlchemy URL; one with a password comes as the secret database_url",
    )
    db_host: str = Field(
        default="", validation_alias=AliasChoices("DB_HOST", "db_host"), description="PostgreSQL, where no database_url"
    )
    db_port: int = Field(default=5432, ge=1, le=65535, validation_alias=AliasChoices("DB_PORT", "db_port"))
    db_name: str = Field(default="", validation_alias=AliasChoices("DB_NAME", "db_name"), description="the app's name")
    db_user: str = Field(default="", validation_alias=AliasChoices("DB_USER", "db_user"), description="the app's name")
    db_password: SecretStr = Field(
        default=SecretStr(""), validation_alias=AliasChoices("DB_PASSWORD", "db_password"), repr=False
    )
    api_socket: Path | None = Field(
        default=None, validation_alias=_name("api_socket"), description="API socket of this slot"
    )
    api_url: str = Field(
        default="http://127.0.0.1:8000", validation_alias=_name("api_url"), description="API without a socket"
    )
    site: Path = Field(
        default=Path("/etc/pergola/site.json"), validation_alias=_name("site"), description="the derived plan"
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(default="INFO", validation_alias=_name("log_level"))

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, values: Any) -> Any:
        # systemd's Environment=PERGOLA_API_SOCKET= means "not set", not "the empty path"
        if isinstance(values, dict):
            return {key: value for key, value in values.items() if value not in ("", None)}
        return values

    @model_validator(mode="after")
    def _derive(self) -> "Settings":
        # object.__setattr__: the model is being built, validation must not start again
        def put(field: str, value: object) -> None:
            object.__setattr__(self, field, value)

        put("app", self.app or _app_name(type(self).__module__))
        put("base_path", _slashes(self.base_path or f"/{self.app}/"))
        put("api_prefix", self.api_prefix.rstrip("/"))
        state_dir = self.state_dir if self.state_dir != Path() else Path("build/state") / self.app
        put("state_dir", state_dir.absolute())
        put("storage", self.storage or f"file://{self.state_dir}/storage")
        put("database_url", self.database_url or secret(_DATABASE_SECRET) or self._database())
        return self

    def _database(self) -> str:
        """A PostgreSQL that `DB_HOST` and its companions name, else a file."""
        if not self.db_host:
            return f"sqlite:///{self.state_dir}/{self.app}.db"
        return URL.create(
            "postgresql+psycopg2",
            username=self.db_user or self.app,
            password=self.db_password.get_secret_value() or None,
            host=self.db_host,
            port=self.db_port,
            database=self.db_name or self.app,
        ).render_as_string(hide_password=False)

    @property
    def on_host(self) -> bool:
        """True when systemd started this process in a slot of a host."""
        return bool(self.slot)


def _slashes(path: str) -> str:
    inner = path.strip("/")
    return f"/{inner}/" if inner else "/"


def _app_name(module: str) -> str:
    """The app whose module or command this is: app.wine.settings, `uvicorn app.wine.api:app`."""
    if found := _APP_IN_MODULE.match(module):
        return found[1]
    for argument in sys.orig_argv:
        if found := _APP_IN_COMMAND.search(argument):
            return found[1]
    return "local"


S = TypeVar("S", bound=Settings)


@cache
def _read(cls: Callable[[], Settings]) -> Settings:
    try:
        return cls()
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}"
            for item in error.errors(include_input=False)
        )
        raise SettingsError(f"settings are wrong: {problems}. Set them in the environment or in {ENV_FILE}.") from error


@overload
def get_settings() -> Settings: ...
@overload
def get_settings(cls: type[S]) -> S: ...
def get_settings(cls: type[Settings] = Settings) -> Settings:
    """Settings of this process, read once for each class. Raises SettingsError."""
    return _read(cls)


def clear_settings() -> None:
    """Forget what was read; for tests that change the environment."""
    _read.cache_clear()


def secret(name: str) -> str | None:
    """The secret `name`, or None when nobody gave one.

    Looked for in systemd's credentials, then in `PERGOLA_SECRET_<NAME>`, then in `.env`. Never logged, never cached.
    """
    if not _SECRET_NAME.fullmatch(name):
        raise SettingsError(f"secret {name!r}: a name has lower-case letters, digits and underscores")
    if folder := os.environ.get("CREDENTIALS_DIRECTORY"):
        path = Path(folder) / name
        if path.is_file():
            return path.read_text(encoding="utf-8").rstrip("\n")
    variable = f"PERGOLA_SECRET_{name.upper()}"
    if value := os.environ.get(variable):
        return value
    return dotenv_values(ENV_FILE).get(variable) or None
