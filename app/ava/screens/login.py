"""The way in."""

from app.ava.screens import common
from app.core import asking


def page() -> None:
    """The page."""
    common.heading("Log in", "Clips, projects and datasets are for those who know the admin password.")
    asking.login_form("")
