"""What a drawing can show: 52 subjects by index, 12 more slots kept free."""

from typing import Final

import numpy as np
import numpy.typing as npt

SLOTS: Final = 64
UNSPECIFIED: Final = 0

NAMES: Final = (
    "unspecified",
    *"TV airplane apple bed bike boat book bottle bowl cactus car chair clock couch cup hat house".split(),
    "ice cream",
    *"key lamp mushroom phone piano scissors train tree watch".split(),
    *"bear bee bird camel cat cow dog elephant fish frog horse octopus rabbit sheep snail spider tiger whale".split(),
    *"face hand person family abstract other".split(),
)
"""Index 0 unspecified, 1-27 things, 28-45 animals, 46-48 people, 49 family, 50 abstract, 51 other."""

_INDEX: Final = {name.casefold(): index for index, name in enumerate(NAMES)}


def group_of(index: int) -> str:
    """The kind of subject: thing, animal, person or other."""
    if 1 <= index <= 27:
        return "thing"
    if 28 <= index <= 45:
        return "animal"
    return "person" if 46 <= index <= 49 else "other"


def index_of(name: str | None) -> int:
    """Index of a subject, whatever its case; what is not known is unspecified (0)."""
    return _INDEX.get(" ".join((name or "").replace("_", " ").split()).casefold(), UNSPECIFIED)


def slots_of(index: int) -> npt.NDArray[np.float32]:
    """The subject as 64 slots, one of them 1."""
    slots = np.zeros(SLOTS, np.float32)
    slots[index] = 1.0
    return slots
