"""The attributes of a person and the ids of actions: the one place that knows them.

A profile is a file, `{"<attribute>": {"options": ["unknown", ...]}}`. Actions are all options but `unknown`, numbered from 1 in the
order of the file. Exchange the file and everything follows: the labels in CVAT, the CSV, the label map.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

LABEL: Final = "person"
UNKNOWN: Final = "unknown"
DEFAULT_FILE: Final = Path(__file__).resolve().parents[2] / "files" / "ava" / "attributes.json"
_MOST: Final = 64


class ProfileError(Exception):
    """The attributes cannot be used; the message says what to change."""


@dataclass(frozen=True)
class Action:
    """One action: its id from 1 on, and which option of which attribute it is."""

    id: int
    attribute: str
    option: str
    name: str


@dataclass(frozen=True)
class Profile:
    """Attributes in their order, each with its options; the first of them is `unknown`."""

    options: Mapping[str, tuple[str, ...]]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The attributes."""
        return tuple(self.options)

    @cached_property
    def actions(self) -> tuple[Action, ...]:
        """All actions, by id. An option that two attributes have gets its attribute's name before it."""
        pairs = [(name, option) for name, options in self.options.items() for option in options if option != UNKNOWN]
        often = Counter(option for _, option in pairs)
        return tuple(
            Action(number, name, option, option if often[option] == 1 else f"{name}_{option}")
            for number, (name, option) in enumerate(pairs, 1)
        )

    @cached_property
    def _ids(self) -> dict[tuple[str, str], int]:
        return {(action.attribute, action.option): action.id for action in self.actions}

    def action_id(self, attribute: str, option: str) -> int | None:
        """The id of an action; None for `unknown`. Raises ProfileError for an option that the profile does not have."""
        if option == UNKNOWN and attribute in self.options:
            return None
        found = self._ids.get((attribute, option))
        if found is None:
            raise ProfileError(f"{attribute}: {option!r} is not in the attributes of this project")
        return found

    def complete(self, given: Mapping[str, str]) -> dict[str, str]:
        """Every attribute with a value: what was given, else `unknown`. What the profile does not know is left out."""
        return {name: given[name] if given.get(name) in options else UNKNOWN for name, options in self.options.items()}

    def unknown_to_profile(self, given: Mapping[str, str]) -> list[str]:
        """What of the given attributes is not in this profile, as `attribute=value`."""
        return [f"{name}={value}" for name, value in given.items() if value not in self.options.get(name, ())]

    def pbtxt(self) -> str:
        """The label map of AVA: `item {`, `  name: "x"`, `  id: N`, `}` for each action."""
        return "".join(f'item {{\n  name: "{action.name}"\n  id: {action.id}\n}}\n' for action in self.actions)

    def csv_rows(self, box: str, person: int, given: Mapping[str, str], prefix: str) -> list[str]:
        """The lines of AVA's CSV for one box: one an action. The text of the box is the same in each.

        Args:
            box: `x1,y1,x2,y2` as text.
            person: Id of the person within the video.
            given: What the annotators said.
            prefix: `video_id,timestamp`.
        """
        ids = (self.action_id(name, value) for name, value in given.items())
        return [f"{prefix},{box},{action},{person}" for action in sorted(one for one in ids if one is not None)]

    def cvat_labels(self) -> list[dict[str, Any]]:
        """The labels of a CVAT project: one label `person`, a select for each attribute, `unknown` by default."""
        return [
            {
                "name": LABEL,
                "type": "rectangle",
                "attributes": [
                    {
                        "name": name,
                        "mutable": True,
                        "input_type": "select",
                        "values": list(options),
                        "default_value": UNKNOWN,
                    }
                    for name, options in self.options.items()
                ],
            }
        ]

    def as_dict(self) -> dict[str, Any]:
        """In the form of the file."""
        return {name: {"options": list(options)} for name, options in self.options.items()}


def load(path: Path = DEFAULT_FILE) -> Profile:
    """The profile of a file. Raises ProfileError."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(
            f"{path}: {error.strerror}; AVA_ATTRIBUTES names the file that holds the attributes"
        ) from error
    except ValueError as error:
        raise ProfileError(f"{path.name} is not JSON: {error}") from error
    return from_dict(raw)


def from_dict(raw: Any) -> Profile:
    """A profile from what a file holds. Raises ProfileError."""
    if not isinstance(raw, dict) or not raw or len(raw) > _MOST:
        raise ProfileError(
            f'attributes: expected {{"<attribute>": {{"options": ["unknown", ...]}}}} with 1 to {_MOST} attributes'
        )
    return Profile({str(name): _options(str(name), about) for name, about in raw.items()})


def _options(name: str, about: Any) -> tuple[str, ...]:
    options = about.get("options") if isinstance(about, dict) else None
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ProfileError(f'attributes/{name}: expected {{"options": ["unknown", ...]}}')
    if len(options) < 2 or options[0] != UNKNOWN:
        raise ProfileError(f"attributes/{name}/options: the first is {UNKNOWN!r}, and at least one more follows")
    if len(set(options)) != len(options):
        raise ProfileError(f"attributes/{name}/options: {_twice(options)!r} is there twice")
    for word in (name, *options):
        # they become XML attributes, CSV fields and quoted text in the label map
        if not word or not word.replace("_", "").replace("-", "").isalnum() or not word.isascii() or len(word) > 64:
            raise ProfileError(f"attributes/{name}: {word[:70]!r} is not allowed; use letters, digits, _ and -")
    return tuple(options)


def _twice(words: Iterable[str]) -> str:
    return next(word for word, count in Counter(words).items() if count > 1)
