"""What went wrong in the services, as answers."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import HTTPException
from sqlalchemy.exc import IntegrityError

from app.ava.service import Conflict, Refused, Unknown
from app.ava.uploads import TooLarge
from app.core.storage import NotFound, StorageError


@contextmanager
def said() -> Iterator[None]:
    """Turn what services raise into an answer with their sentence."""
    try:
        yield
    except Unknown as error:
        raise HTTPException(404, str(error)) from error
    except Conflict as error:
        raise HTTPException(409, str(error)) from error
    except TooLarge as error:
        raise HTTPException(413, str(error)) from error
    except Refused as error:
        raise HTTPException(400, str(error)) from error
    except NotFound as error:
        raise HTTPException(404, f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    except StorageError as error:
        raise HTTPException(400, f"{str(error)[:1].upper()}{str(error)[1:]}.") from error
    except IntegrityError as error:
        raise HTTPException(409, "Somebody else did this at the same moment; look again.") from error
