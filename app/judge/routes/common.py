"""What the routes share."""

from typing import Annotated, Any, Final

from fastapi import Path, Query

from app.core.problems import MEDIA_TYPE
from app.judge.schemas import ULID_PATTERN, OverBudget, Refusal, TooMany

# what is no id is simply not there
HackId = Annotated[str, Path(max_length=64, description="a hackathon's id")]
SubId = Annotated[str, Path(max_length=64, description="a submission's id")]
KeyId = Annotated[str, Path(max_length=64, description="a key's id")]
Limit = Annotated[int, Query(ge=1, le=100, description="rows a page")]
Cursor = Annotated[str | None, Query(pattern=ULID_PATTERN, description="next_cursor of the page before")]


def _problem(model: type[Any], description: str) -> dict[str, Any]:
    """An error that is a problem with members of its own."""
    own = {"$ref": f"#/components/schemas/{model.__name__}"}
    schema = {"allOf": [{"$ref": "#/components/schemas/Problem"}, own]}
    return {"model": model, "description": description, "content": {MEDIA_TYPE: {"schema": schema}}}


REFUSED: Final[dict[int | str, dict[str, Any]]] = {
    401: _problem(Refusal, "No key, or none that is good"),
    429: _problem(TooMany, "More requests a second or a day than the tier allows"),
}
NOT_FOUND: Final[dict[int | str, dict[str, Any]]] = {404: {"description": "It is not there, or not yours"}}
CONFLICT: Final[dict[int | str, dict[str, Any]]] = {409: {"description": "Its state does not allow it"}}
OVER_BUDGET: Final[dict[int | str, dict[str, Any]]] = {402: _problem(OverBudget, "A budget does not allow it")}
LIMITED: Final[dict[int | str, dict[str, Any]]] = {429: {"description": "Too many requests from this address"}}
