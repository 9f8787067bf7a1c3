"""Each app's own database and user on the environment's server, made by the hosts that serve it.

The server stands where only hosts reach it, so a host makes what its apps need: a database, a role that owns it, and a login whose name
ends in a hash of its password. A rotated password is another login of the same role: hosts that still have the old one work on, and the
old login ends a day later.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from typing import Any

from pg8000.exceptions import Error, InterfaceError
from pg8000.native import Connection, identifier, literal

LOCK = 7204291  # any number: hosts that start together do this one after the other
OLD_LOGIN_SECONDS = 86400


def connect(where: dict[str, Any], user: str, password: str, database: str) -> Connection:
    """Connect over TLS; the server's certificate is its own, the network is what keeps others away.

    Raises:
        OSError: The server does not answer, or refuses; it may still be starting.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        return Connection(
            user,
            host=str(where["host"]),
            port=int(where.get("port", 5432)),
            database=database,
            password=password,
            timeout=30,
            ssl_context=context if where.get("tls", True) else None,
        )
    except (Error, InterfaceError) as error:
        raise OSError(f"{where['host']}: {error}") from error


def login_of(app: str, password: str) -> str:
    """Return the name of the login that an app has with a password."""
    return f"pergola_{app}_{hashlib.sha256(password.encode()).hexdigest()[:8]}"


def url(where: dict[str, Any], app: str, password: str) -> str:
    """Return the SQLAlchemy URL of an app's database."""
    mode = "require" if where.get("tls", True) else "disable"
    place = f"{where['host']}:{int(where.get('port', 5432))}"
    return f"postgresql+psycopg2://{login_of(app, password)}:{password}@{place}/pergola_{app}?sslmode={mode}"


def ensure(server: Connection, app: str, password: str) -> None:
    """Make an app's database, the role that owns it and its login, as far as they are not there. A second time changes nothing.

    Args:
        server: A connection of a user that may make roles and databases.
        app: Name of the app.
        password: Of its login.
    """
    owner, login = f"pergola_{app}", login_of(app, password)
    server.run(f"SELECT pg_advisory_lock({LOCK})")
    try:
        there = {str(row[0]) for row in server.run("SELECT rolname FROM pg_roles")}
        if owner not in there:
            server.run(f"CREATE ROLE {identifier(owner)} NOLOGIN")
            server.run(
                f"GRANT {identifier(owner)} TO CURRENT_USER"
            )  # who makes a database for a role must be able to be it
        if not server.run("SELECT 1 FROM pg_database WHERE datname = :name", name=owner):
            server.run(f"CREATE DATABASE {identifier(owner)} OWNER {identifier(owner)}")
            server.run(f"REVOKE CONNECT ON DATABASE {identifier(owner)} FROM PUBLIC")
        if login not in there:
            server.run(
                f"CREATE ROLE {identifier(login)} LOGIN PASSWORD {literal(password)} IN ROLE {identifier(owner)}"
            )
            server.run(
                f"ALTER ROLE {identifier(login)} SET role = {literal(owner)}"
            )  # what it makes belongs to the role
        for name in there - {login}:
            if re.fullmatch(rf"{owner}_[0-9a-f]{{8}}", name):
                end_later(server, name)
    finally:
        server.run(f"SELECT pg_advisory_unlock({LOCK})")


def end_later(server: Connection, login: str) -> None:
    """Let a login of a password that was rotated end a day from now; one that ends already stays as it is."""
    found = server.run(
        "SELECT to_char(now() + make_interval(secs => :seconds), 'YYYY-MM-DD HH24:MI:SSOF') FROM pg_roles "
        "WHERE rolname = :name AND coalesce(rolvaliduntil, 'infinity') = 'infinity'",
        seconds=OLD_LOGIN_SECONDS,
        name=login,
    )
    for (until,) in found:
        server.run(f"ALTER ROLE {identifier(login)} VALID UNTIL {literal(until)}")
