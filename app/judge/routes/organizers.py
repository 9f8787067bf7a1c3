"""Organizers: register, log in, who am I."""

from fastapi import APIRouter, Depends, HTTPException
from sqlalchemy import select

from app.core import database
from app.core.ratelimit import RateLimit
from app.judge import accounts, keys
from app.judge.keys import Asking
from app.judge.routes.common import LIMITED, REFUSED
from app.judge.schemas import Limits, LoggedIn, LoginIn, Me, OrganizerIn, Registered, moment
from app.judge.settings import JudgeSettings
from app.judge.tables import Organizer


def router(settings: JudgeSettings) -> APIRouter:
    """The routes; registering and logging in have limits of their own."""
    routes = APIRouter(prefix="/organizers", tags=["organizers"])

    @routes.post(
        "",
        status_code=201,
        summary="Register; the key is shown this once",
        dependencies=[Depends(RateLimit(settings.register_per_hour, 3600, "register"))],
        responses={409: {"description": "The address is taken"}, **LIMITED},
    )
    def register(given: OrganizerIn) -> Registered:
        row, key = accounts.register(given, settings.default_tier)
        return Registered(**accounts.organizer_out(row).model_dump(), api_key=key)

    @routes.post(
        "/login",
        summary="A new key for an e-mail address and its password",
        dependencies=[Depends(RateLimit(settings.login_per_minute, 60, "login"))],
        responses={401: {"description": "Address or password is not right"}, **LIMITED},
    )
    def login(given: LoginIn) -> LoggedIn:
        by_address = RateLimit(settings.login_per_minute, 60, "login-email").check(given.email.strip().lower())
        if not by_address.allowed:  # many addresses guessing at one account
            raise HTTPException(429, by_address.refusal(), by_address.headers())
        org_id, key, expires = accounts.log_in(given, settings)
        return LoggedIn(org_id=org_id, api_key=key, expires_at=moment(expires))

    @routes.get("/me", summary="Who asks", responses=REFUSED)
    def me(asking: Asking) -> Me:
        with database.session(read_only=True) as db:
            row = db.scalars(select(Organizer).where(Organizer.id == asking.org_id)).one()
            tier = asking.limits
            return Me(
                **accounts.organizer_out(row).model_dump(),
                limits=Limits(requests_per_second=tier.per_second, requests_per_day=tier.per_day, budget_usd=tier.usd),
                spent_usd=round(keys.spent(db, row.id), 6),
                hackathon_count=accounts.hackathon_count(db, row.id),
            )

    return routes
