"""Which environment this process is of, and that it opens no other one's data.

`APP_ENVIRONMENT` says it; without it a set `AWS_REGION` means production; else local. Data is told apart three times:

- **name**: in S3 the bucket's name, or the first folder where that has none, names its environment (`s3://team-production-data/...`,
  `s3://bucket/production/...`); on a database server the database's name does, or else the server's;
- **account**: outside of production the credentials must not be those of the production account;
- **stamp**: a database and a storage carry the name of the environment that used them first.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.core import database
from app.core.storage import NotFound, Storage
from app.drawings.tables import Setting

LOCAL: Final = "local"
PRODUCTION: Final = "production"
NAMES: Final = (LOCAL, "rehearsal", "demo", "staging", PRODUCTION)

_STAMP: Final = "environment"
_STAMP_KEY: Final = "environment.txt"
_HERE: Final = frozenset({"", "localhost", "127.0.0.1", "::1"})
_FOLDER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")


class WrongEnvironment(Exception):
    """These settings would open another environment's data; the message says which and what to change."""


def environment(variables: Mapping[str, str]) -> str:
    """The environment that these variables mean. Raises WrongEnvironment for a name that is none."""
    said = variables.get("APP_ENVIRONMENT", "").strip().casefold()
    if said:
        if said not in NAMES:
            raise WrongEnvironment(f"APP_ENVIRONMENT is {said!r}; expected one of {', '.join(NAMES)}")
        return said
    return PRODUCTION if variables.get("AWS_REGION", "").strip() else LOCAL


def check_places(
    here: str,
    *,
    storage: str,
    database_url: str,
    production_account: str = "",
    account: Callable[[], str] = lambda: "",
) -> None:
    """Refuse places that cannot be of environment `here`. `account` is asked only when there is something to compare.

    Raises:
        WrongEnvironment: The storage's prefix or the credentials' account is another environment's, or a database elsewhere
            does not carry the environment's name.
    """
    _check_storage(here, storage)
    _check_database(here, database_url)
    if storage.startswith("s3:") and production_account:
        used = account()
        if here != PRODUCTION and used == production_account:
            raise WrongEnvironment(f"{here} settings with credentials of the production account {used}: use others")
        if here == PRODUCTION and used != production_account:
            raise WrongEnvironment(
                f"production settings with credentials of account {used or 'unknown'}, not {production_account}"
            )


def _check_storage(here: str, storage: str) -> None:
    parts = urlsplit(storage)
    if parts.scheme == "file":
        return
    folders = unquote(parts.path).strip("/").split("/")
    named = _named(parts.netloc) or set(folders[:1])
    if named != {here} or any(not _FOLDER.fullmatch(name) for name in folders if folders != [""]):
        raise WrongEnvironment(
            f"storage {storage!r} is not of environment {here}: expected a bucket with {here!r} as a word of its name, "
            f"or s3://<bucket>/{here}, or a folder below"
        )


def _named(text: str) -> set[str]:
    """The environments that a name has as a word."""
    return set(re.split(r"[^a-z0-9]+", text.casefold())) & set(NAMES)


def _check_database(here: str, url: str) -> None:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise WrongEnvironment("the database URL cannot be read") from error
    if parsed.get_backend_name() == "sqlite":
        return
    host = parsed.host or str(parsed.query.get("host", ""))
    if host in _HERE or host.startswith("/"):
        return
    if (_named(parsed.database or "") or _named(host.partition(".")[0])) != {here}:
        raise WrongEnvironment(
            f"database {parsed.database!r} on {host} is not of environment {here}: its name, or else its server's, must contain "
            f"{here!r} as a word"
        )


def stamp(here: str, storage: Storage) -> None:
    """Mark database and storage as this environment's, or refuse when they are another's."""
    with database.session(read_only=True) as db:
        found = db.scalar(select(Setting.value).where(Setting.name == _STAMP))
    if found is None:
        with database.session() as db:
            if db.get(Setting, _STAMP) is None:
                db.add(Setting(name=_STAMP, value=here))
    elif found != here:
        raise WrongEnvironment(
            f"the database is of environment {found}, these settings are of {here}: use another database"
        )
    try:
        kept = storage.get(_STAMP_KEY).decode().strip()
    except NotFound:
        storage.put(_STAMP_KEY, f"{here}\n".encode())
        return
    if kept != here:
        raise WrongEnvironment(
            f"the storage is of environment {kept}, these settings are of {here}: use another storage"
        )


def account_of_credentials() -> str:
    """The AWS account of the credentials in use."""
    import boto3  # noqa: PLC0415 - only where there is S3

    return str(boto3.client("sts").get_caller_identity()["Account"])
