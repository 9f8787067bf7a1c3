"""What the routes and the worker share: made once a process."""

from dataclasses import dataclass
from functools import cached_property

from fastapi import Request

from app.ava import attributes
from app.ava.attributes import Profile
from app.ava.settings import AvaSettings
from app.ava.uploads import Uploads
from app.ava.work import Work
from app.core.settings import get_settings
from app.core.storage import Storage, open_storage


@dataclass
class Context:
    """The parts of a running API or worker."""

    settings: AvaSettings

    @classmethod
    def read(cls) -> "Context":
        """With the settings of this process."""
        return cls(get_settings(AvaSettings))

    @cached_property
    def storage(self) -> Storage:
        """Where files are."""
        return open_storage(self.settings.storage)

    @cached_property
    def profile(self) -> Profile:
        """The attributes of new projects. Raises ProfileError."""
        return attributes.load(self.settings.attributes)

    @cached_property
    def uploads(self) -> Uploads:
        """Lets files in."""
        return Uploads(self.settings, self.storage)

    @cached_property
    def work(self) -> Work:
        """Does what there is to do."""
        return Work(self.settings, self.storage, self.uploads)


def context(request: Request) -> Context:
    """A dependency: the parts of this API."""
    found: Context = request.app.state.context
    return found
