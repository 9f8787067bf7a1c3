"""Opens this environment's data, and nobody else's."""

import os

from app.core.storage import open_storage
from app.drawings import environment
from app.drawings.settings import DrawingsSettings


def open_data(settings: DrawingsSettings) -> str:
    """Check places and stamps; the environment's name. Raises environment.WrongEnvironment."""
    here = environment.environment(os.environ)
    environment.check_places(
        here,
        storage=settings.storage,
        database_url=settings.database_url,
        production_account=settings.production_account,
        account=lambda: settings.account or environment.account_of_credentials(),
    )
    environment.stamp(here, open_storage(settings.storage))
    return here
