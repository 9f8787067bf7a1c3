"""Admin login of an app: one password, sessions on the server, a lock-out for those who guess.

    app.include_router(auth.router())

    @app.post("/retrain", dependencies=[Depends(auth.require_admin)])
    def retrain() -> ...

The password is the secret `admin_password` (or an argon2 hash of it). A session is a random token of 256 bits, of which the
database keeps only the SHA-256; it ends 3600 s after it was last used. A browser carries the token in a cookie, a program in
`Authorization: Bearer`. Five wrong passwords from one address within 300 s close the door to that address.
"""

import hashlib
import ipaddress
import logging
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError
from fastapi import APIRouter, Depends, Form, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field
from sqlalchemy import delete, func, select, text
from sqlalchemy.orm import Mapped, Session, mapped_column

from app.core import database, login_page, metrics, migrate, passwords, problems
from app.core.asgi import client_address
from app.core.settings import Settings, get_settings, secret

log = logging.getLogger(__name__)

SESSION_SECONDS: Final = 3600
ATTEMPTS: Final = 5
ATTEMPT_SECONDS: Final = 300
SECRET: Final = "admin_password"  # noqa: S105 - the name of a secret

_TOUCH_SECONDS: Final = 60  # a session's end is moved at most this often: most requests only read
_MAX_PASSWORD: Final = 1024
_LOCK: Final = 7237392  # PostgreSQL: attempts of one address are counted one after the other

_hash_lock: Final = threading.Lock()

_logins: Final = metrics.counter("admin_logins", "Admin logins by outcome", ("outcome",))


class AdminSession(database.CoreBase):
    """A logged-in admin. Times are seconds since 1970."""

    __tablename__ = "pergola_admin_session"

    token_sha256: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[float]
    expires_at: Mapped[float]
    client: Mapped[str]


class LoginAttempt(database.CoreBase):
    """A password that was tried and was not (or not yet) right."""

    __tablename__ = "pergola_login_attempt"

    id: Mapped[int] = mapped_column(primary_key=True)
    client: Mapped[str]
    at: Mapped[float]


class Login(BaseModel):
    """What a program sends to log in."""

    password: str = Field(min_length=1, max_length=_MAX_PASSWORD)


class LoggedIn(BaseModel):
    """What it gets."""

    session_token: str
    expires_in: int = Field(description="seconds without use after which the session ends")


class Status(BaseModel):
    """Who is asking."""

    logged_in: bool
    expires_in: int | None = Field(default=None, description="seconds until the session ends")


@dataclass(frozen=True)
class Admin:
    """The admin of this request."""

    token_sha256: str
    expires_at: float


class OtherSite(Exception):
    """A browser's request that changes something came from a page of another site."""


NEEDS_LOGIN: Final = "Log in as admin first."

_bearer: Final = HTTPBearer(auto_error=False, description="session_token of POST /auth/api/login")


def router(prefix: str = "/auth", *, limit: Callable[..., None] | None = None) -> APIRouter:
    """The routes to log in and out; `limit` is a rate limit (a dependency) for those that take a password."""
    routes = APIRouter(prefix=prefix, tags=["admin"])
    limited = [Depends(limit)] if limit is not None else []

    @routes.get("/login", include_in_schema=False)
    def login(request: Request, redirect: str = "") -> Response:
        return _page(request, prefix, _local(redirect, ""))

    @routes.get("/check", include_in_schema=False)
    async def check(request: Request) -> Response:
        """For nginx, before it passes on what is not public: 204 for an admin, else 401."""
        return Response(status_code=204 if await _known(request) else 401)

    @routes.post(
        "/login", status_code=303, response_class=RedirectResponse, summary="Log in from a form", dependencies=limited
    )
    def login_form(
        request: Request,
        password: Annotated[str, Form(min_length=1, max_length=_MAX_PASSWORD)],
        next: Annotated[str, Form(max_length=500)] = "",  # noqa: A002 - its name in every form
        redirect: Annotated[str, Form(max_length=500, description="the same as next")] = "",
    ) -> Response:
        settings = get_settings()
        target = _local(next or redirect, settings.base_path)
        try:
            token = log_in(password, client_address(request.scope))
        except HTTPException as error:
            if "text/html" not in request.headers.get("accept", ""):
                raise
            return _page(request, prefix, target, str(error.detail), error.status_code, error.headers)
        answer = RedirectResponse(target, 303)
        _set_cookie(answer, request, settings, token)
        return answer

    @routes.post("/api/login", summary="Log in from a program", dependencies=limited)
    def login_api(request: Request, response: Response, login: Login) -> LoggedIn:
        token = log_in(login.password, client_address(request.scope))
        response.headers["Cache-Control"] = "no-store"
        return LoggedIn(session_token=token, expires_in=SESSION_SECONDS)

    @routes.post("/logout", status_code=204, summary="End the session")
    def logout(
        request: Request, response: Response, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> None:
        settings = get_settings()
        token = _token(request, bearer, settings)
        if token:
            with database.session(_url()) as db:
                db.execute(delete(AdminSession).where(AdminSession.token_sha256 == _digest(token)))
        response.delete_cookie(cookie_name(settings), path=settings.base_path)

    @routes.get("/status", summary="Whether this session is an admin's")
    def status(request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Status:
        admin = _find(_token(request, bearer, get_settings()))
        return Status(logged_in=admin is not None, expires_in=int(admin.expires_at - time.time()) if admin else None)

    return routes


def require_admin(request: Request, bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> Admin:
    """A dependency: the admin of this request, or 401."""
    settings = get_settings()
    token = _token(request, bearer, settings)
    admin = _find(token)
    if admin is None:
        login_url = f"{settings.api_prefix}/auth/login"
        raise HTTPException(401, {"detail": NEEDS_LOGIN, **_needed(login_url)}, {"WWW-Authenticate": "Bearer"})
    if bearer is None and request.method not in {"GET", "HEAD", "OPTIONS"} and not _same_origin(request):
        raise HTTPException(403, "This request came from another site.")
    return admin


async def admitted(request: Request) -> bool:
    """Whether an admin asks. Raises OtherSite when his browser was led here by another site."""
    if not await _known(request):
        return False
    if not _given_bearer(request) and request.method not in {"GET", "HEAD", "OPTIONS"} and not _same_origin(request):
        raise OtherSite
    return True


def login_needed(path: str, login_url: str) -> JSONResponse:
    """The answer to a program that has not logged in."""
    return problems.problem(
        401,
        NEEDS_LOGIN,
        instance=path,
        headers={"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"},
        **_needed(login_url),
    )


def other_site(request: Request) -> JSONResponse:
    """The answer to a request that another site's page made in an admin's name."""
    return problems.problem(403, "This request came from another site.", instance=request.url.path)


def _needed(login_url: str) -> dict[str, Any]:
    return {"error": "unauthorized", "message": NEEDS_LOGIN, "login_url": login_url, "type": "authentication_required"}


def _given_bearer(request: Request) -> str:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _known(request: Request) -> bool:
    token = _given_bearer(request) or request.cookies.get(cookie_name(get_settings()), "")
    return bool(token) and await run_in_threadpool(_find, token) is not None


def is_admin(token: str) -> bool:
    """Whether this token is of a session that has not ended; using it moves the end forward."""
    return _find(token) is not None


def _page(
    request: Request,
    prefix: str,
    target: str,
    refused: str = "",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    title = str(request.app.title)
    action = f"{request.scope.get('root_path', '')}{prefix}/login"
    return login_page.answer(title, action, target, refused, status, headers)


def log_in(password: str, client: str) -> str:
    """Check the password and begin a session; returns its token.

    Raises:
        HTTPException: 401 wrong password, 429 too many of them (with Retry-After), 503 no password is set.
    """
    client = _network(client)
    expected = secret(SECRET)
    if expected is None:
        raise HTTPException(503, f"Admin login is not set up: give the app the secret {SECRET}.")
    known = _hash(expected)
    now = time.time()
    attempt = _reserve_attempt(client, now)
    if not passwords.right(password, known):
        _logins.labels("refused").inc()
        log.warning("admin login refused", extra={"event": "login_refused", "client": client})
        raise HTTPException(401, "The password is not right.", {"WWW-Authenticate": "Bearer"})
    token = secrets.token_urlsafe(32)
    with database.session(_url()) as db:
        db.execute(delete(LoginAttempt).where(LoginAttempt.client == client))
        db.execute(delete(AdminSession).where(AdminSession.expires_at < now))
        db.add(
            AdminSession(token_sha256=_digest(token), created_at=now, expires_at=now + SESSION_SECONDS, client=client)
        )
    _logins.labels("accepted").inc()
    log.info("admin logged in", extra={"event": "login", "client": client, "attempt": attempt})
    return token


def _reserve_attempt(client: str, now: float) -> int:
    """Count this attempt before the password is looked at, so that parallel guesses cannot slip through; its number."""
    with database.session(_url()) as db:
        _lock(db)
        db.execute(delete(LoginAttempt).where(LoginAttempt.at <= now - ATTEMPT_SECONDS))
        count, oldest = db.execute(
            select(func.count(), func.min(LoginAttempt.at)).where(LoginAttempt.client == client)
        ).one()
        if count < ATTEMPTS:
            db.add(LoginAttempt(client=client, at=now))
            return int(count) + 1
    wait = max(1, int(oldest + ATTEMPT_SECONDS - now) + 1)
    _logins.labels("locked").inc()
    log.warning("admin login locked", extra={"event": "login_locked", "client": client, "retry_after": wait})
    raise HTTPException(429, f"Too many wrong passwords. Try again in {wait} seconds.", {"Retry-After": str(wait)})


def _lock(db: Session) -> None:
    if db.get_bind().dialect.name == "postgresql":  # SQLite's BEGIN IMMEDIATE is the lock already
        db.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})


def _find(token: str) -> Admin | None:
    """The session of `token`, its end moved forward; None when there is none."""
    if not token:
        return None
    digest, now = _digest(token), time.time()
    with database.session(_url(), read_only=True) as db:
        found = db.get(AdminSession, digest)
    if found is None or found.expires_at <= now:
        return None
    end = now + SESSION_SECONDS
    if end - found.expires_at < _TOUCH_SECONDS:
        return Admin(digest, found.expires_at)
    with database.session(_url()) as db:
        row = db.get(AdminSession, digest)
        if row is None:  # logged out meanwhile
            return None
        row.expires_at = end
    return Admin(digest, end)


@cache
def _prepared(url: str) -> str:
    """On a laptop nobody runs the migrations first."""
    settings = get_settings()
    if not settings.on_host:
        migrate.ensure(settings)
    return url


def _url() -> str:
    return _prepared(get_settings().database_url)


@cache
def _hash_of(password: str) -> str:
    if not password.startswith("$argon2"):
        return passwords.hashed(password)
    try:
        extract_parameters(password)
    except InvalidHashError as error:
        raise HTTPException(503, f"Admin login is not set up: the secret {SECRET} is no argon2 hash.") from error
    return password


def _hash(password: str) -> str:
    """The argon2 hash of the secret, made once a process."""
    with _hash_lock:
        return _hash_of(password)


def cookie_name(settings: Settings) -> str:
    """Name of the session cookie: one for each app, since all apps share a host name."""
    return f"pergola_admin_{settings.app}"


def _set_cookie(answer: Response, request: Request, settings: Settings, token: str) -> None:
    # secure whenever the visitor came over https, which is always on a host
    answer.set_cookie(
        cookie_name(settings),
        token,
        path=settings.base_path,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="lax",
    )
    answer.headers["Cache-Control"] = "no-store"


def _token(request: Request, bearer: HTTPAuthorizationCredentials | None, settings: Settings) -> str:
    return bearer.credentials if bearer else request.cookies.get(cookie_name(settings), "")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _network(client: str) -> str:
    """What counts as one visitor: an IPv4 address, or the /64 that an IPv6 customer has to himself."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return client[:64] or "local"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _same_origin(request: Request) -> bool:
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _local(target: str, otherwise: str) -> str:
    """`target` when it is a path of this site, else `otherwise`: nobody is sent elsewhere after a login."""
    parts = urlsplit(target)
    good = target.startswith("/") and not target.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    return target if good and target.isprintable() and "\\" not in target else otherwise
