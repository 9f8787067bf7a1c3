"""The way in."""

from app.core import asking
from app.drawings.screens import common


def page() -> None:
    """The page."""
    common.heading("Log in", "Dashboard, history, batches, configuration, models and usage are for the admin.")
    asking.login_form("dashboard")
