"""What the routes share: made once a process, when the API is made."""

from dataclasses import dataclass
from functools import cached_property

from fastapi import HTTPException, Request

from app.core.encoder import Encoder, open_encoder
from app.core.settings import get_settings
from app.core.storage import Storage, open_storage
from app.drawings import environment
from app.drawings.backups import Keeper
from app.drawings.guard import open_data
from app.drawings.model import NoGroup
from app.drawings.service import Drawings, Unknown
from app.drawings.settings import DrawingsSettings
from app.drawings.store import ModelStore, NoModel, Served
from app.drawings.work import Worker


@dataclass
class Context:
    """The parts of a running API."""

    settings: DrawingsSettings
    environment: str = environment.LOCAL

    @classmethod
    def read(cls) -> "Context":
        """With the settings of this process."""
        return cls(get_settings(DrawingsSettings))

    @cached_property
    def storage(self) -> Storage:
        """Where files are."""
        return open_storage(self.settings.storage)

    @cached_property
    def encoder(self) -> Encoder:
        """Looks at pictures."""
        return open_encoder("lite0")

    @cached_property
    def store(self) -> ModelStore:
        """The model in service."""
        return ModelStore(self.storage, self.encoder.sha256)

    @cached_property
    def drawings(self) -> Drawings:
        """Stores and analyses."""
        return Drawings(self.storage, self.store, self.encoder)

    @cached_property
    def keeper(self) -> Keeper:
        """Makes backups."""
        return Keeper(self.settings, self.storage, self.environment)

    @cached_property
    def worker(self) -> Worker:
        """Works beside the requests."""
        return Worker(self.drawings, self.keeper, self.settings)

    def open(self) -> None:
        """See that the data is this environment's, and look for a model."""
        self.environment = open_data(self.settings)
        self.store.refresh()

    @property
    def base(self) -> str:
        """Address of the API's routes, as a visitor's browser asks for them."""
        return f"{self.settings.api_prefix}/api/v1"


def context(request: Request) -> Context:
    """A dependency: the parts of this API."""
    found: Context = request.app.state.context
    return found


def served(request: Request) -> Served:
    """A dependency: the model in service, or 503."""
    try:
        return context(request).store.current
    except NoModel as error:
        raise HTTPException(503, "There is no model yet; try again in a moment.", {"Retry-After": "10"}) from error


def as_http(error: Exception) -> HTTPException:
    """What went wrong, as an answer."""
    if isinstance(error, Unknown):
        return HTTPException(404, f"{str(error)[:1].upper()}{str(error)[1:]}.")
    if isinstance(error, NoGroup):
        return HTTPException(
            400, "No age group is active, so nothing can judge this drawing; switch one on under Models."
        )
    if isinstance(error, NoModel):
        return HTTPException(503, "There is no model yet; try again in a moment.", {"Retry-After": "10"})
    raise error
