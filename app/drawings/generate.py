"""Draws like a child, from a seed: scribbles at two, tadpole people at three, full figures and scenes at eight.

    drawing(seed=7, age=5.5, subject="cat")        # a PIL image, always the same for the same arguments
    planted("photograph", seed=7, age=5.5)         # what does not belong there

The starter model learns from these drawings, and every figure about it is measured on them. They are no substitute for real drawings,
which the app says wherever it shows them. What changes with age: control of the line, closing of shapes, number of details, size and
placement, colours, and the scene around the subject.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from app.drawings.subjects import NAMES

SIDE: Final = 224
KINDS: Final = ("age-shifted", "blank", "noise", "photograph", "wrong subject")

Points = npt.NDArray[np.float64]
Colour = tuple[int, int, int]

_CRAYONS: Final[tuple[Colour, ...]] = (
    (208, 46, 52),
    (38, 84, 186),
    (42, 138, 66),
    (236, 176, 30),
    (116, 68, 36),
    (132, 62, 158),
    (230, 116, 44),
    (58, 58, 64),
    (232, 120, 160),
)
_PENCIL: Final[Colour] = (62, 62, 68)


@dataclass(frozen=True)
class Part:
    """One stroke of a subject: its kind (o, p, c), numbers, the age it appears at, and whether it is coloured in."""

    kind: str
    numbers: tuple[float, ...]
    age: float
    filled: bool


def _parts(text: str) -> tuple[Part, ...]:
    found = []
    for item in text.split(";"):
        words = item.split()
        age = float(words.pop(0)) if words[0][0].isdigit() else 0.0
        filled = words[0] == "*"
        kind, *numbers = words[1:] if filled else words
        found.append(Part(kind, tuple(map(float, numbers)), age, filled))
    return tuple(found)


def _read_shapes() -> dict[str, tuple[Part, ...]]:
    lines = Path(__file__).with_name("shapes.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition(": ") for line in lines if not line.startswith("#"))
    return {name: _parts(text) for name, _, text in pairs}


_PARTS: Final = _read_shapes()
DRAWN: Final = tuple(name for name in NAMES if name in _PARTS or name in {"person", "family", "abstract"})
"""Subjects that can be drawn: all but `unspecified`."""


class Hand:
    """A child's hand at an age: how steady, how thick, which crayons. Coordinates are pixels."""

    def __init__(self, random: np.random.Generator, age: float, image: Image.Image) -> None:
        self.random = random
        self.age = age
        self.draw = ImageDraw.Draw(image)
        self.control = float(np.clip((age - 2) / 8, 0, 1))
        self.shake = 6.5 * (1 - self.control) ** 1.4 + 0.7
        self.width = float(random.uniform(2.2, 4.4) - 1.2 * self.control)
        pencil = random.random() < 0.25 + 0.15 * self.control
        self.only = _PENCIL if pencil else self._crayon() if random.random() < 0.55 - 0.4 * self.control else None

    def _crayon(self) -> Colour:
        return _CRAYONS[int(self.random.integers(len(_CRAYONS)))]

    def colour(self) -> Colour:
        """The crayon for the next part."""
        return self.only or self._crayon()

    def line(self, points: Points, colour: Colour, *, closed: bool = False) -> None:
        """A line through points, as this hand would make it."""
        if closed:  # the younger, the further from where it began
            points = np.vstack([points, points[:1] + self.random.normal(0, self.shake * 0.9, (1, 2))])
        lengths = np.maximum(2, np.hypot(*np.diff(points, axis=0).T) / 6).astype(int)
        steps = [
            start + (end - start) * np.linspace(0, 1, count, endpoint=False)[:, None]
            for start, end, count in zip(points[:-1], points[1:], lengths, strict=True)
        ]
        path = np.vstack([*steps, points[-1:]])
        drift = np.cumsum(self.random.normal(0, 1, path.shape), axis=0)
        drift -= np.linspace(0, 1, len(path))[:, None] * drift[-1]
        path = path + drift * self.shake * 0.3 + self.random.normal(0, 0.3, path.shape)
        tint = tuple(int(value) for value in np.clip(np.array(colour) + self.random.normal(0, 10, 3), 0, 255))
        width = max(1, round(self.width + self.random.normal(0, 0.4)))
        self.draw.line([tuple(point) for point in path], fill=tint, width=width, joint="curve")

    def oval(self, x: float, y: float, rx: float, ry: float, colour: Colour) -> None:
        """An oval around a middle."""
        loose = 1 - self.control
        turn = 2 * np.pi * (1 + self.random.normal(0, 0.06) * loose)
        angles = np.linspace(0, turn, max(8, int(6 + (rx + ry) / 4))) + self.random.uniform(0, 6)
        wobble = 1 + self.random.normal(0, 0.1, (2, len(angles))) * loose
        self.line(np.stack([x + np.cos(angles) * rx * wobble[0], y + np.sin(angles) * ry * wobble[1]], axis=1), colour)

    def scribble(self, x: float, y: float, radius: float, turns: int, colour: Colour) -> None:
        """Round and round."""
        angles = np.cumsum(self.random.uniform(0.4, 1.5, turns))
        reach = radius * self.random.uniform(0.35, 1, turns)
        self.line(np.stack([x + np.cos(angles) * reach, y + np.sin(angles) * reach], axis=1), colour)

    def fill(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Colour a box in, to and fro; the younger, the further over the edge."""
        over = self.shake * 1.2 * (1 - self.control)
        rows = np.arange(top, bottom, 5.5)
        if len(rows) < 2:
            return
        ends = np.where(np.arange(len(rows)) % 2, right, left) + self.random.normal(0, 1 + over, len(rows))
        self.line(np.stack([ends, rows], axis=1), colour)


def drawing(seed: int, age: float, subject: str | None = None) -> Image.Image:
    """A drawing (224 x 224, RGB) by a child of `age` years; `subject` is one of `DRAWN`, any of them when it is None."""
    random = np.random.default_rng([seed, round(age * 10)])
    image = Image.new("RGB", (SIDE, SIDE), tuple(int(v) for v in random.uniform(243, 256, 3)))
    hand = Hand(random, age, image)
    chosen = subject if subject in DRAWN else DRAWN[int(random.integers(len(DRAWN)))]
    middle = random.normal(SIDE / 2, 6 + 16 * (1 - hand.control), 2)
    size = random.uniform(52, 74) * (1.12 - 0.34 * hand.control)
    if age >= 5:
        _scene(hand, random, chosen)
    if age < 3:
        _first_marks(hand, random, float(middle[0]), float(middle[1]), chosen)
    else:
        _subject(hand, chosen, float(middle[0]), float(middle[1]) + (12 if age >= 5 else 0), float(size))
    return image


def _first_marks(hand: Hand, random: np.random.Generator, x: float, y: float, subject: str) -> None:
    """Before three: scribbles, and now and then something that is said to be a thing."""
    for _ in range(int(random.integers(1, 4))):
        at = random.normal((x, y), 26)
        hand.scribble(float(at[0]), float(at[1]), random.uniform(18, 62), int(random.integers(9, 34)), hand.colour())
    if random.random() < 0.35 and subject != "abstract":
        _subject(hand, subject, x, y, random.uniform(35, 60))


def _subject(hand: Hand, subject: str, x: float, y: float, size: float) -> None:
    if subject == "person":
        _person(hand, x, y, size * 1.9)
    elif subject == "family":
        people = int(hand.random.integers(2, 5))
        for place in range(people):
            tall = size * float(hand.random.uniform(0.95, 1.5))
            _person(hand, x + (place - (people - 1) / 2) * size * 0.85, y + 8, tall)
    elif subject == "abstract":
        _pattern(hand, x, y, size)
    else:
        _shape(hand, subject, x, y, size)


def _shape(hand: Hand, subject: str, x: float, y: float, size: float) -> None:
    body, tilt = hand.colour(), hand.random.normal(0, 0.12 * (1 - hand.control) + 0.02)
    stretch = hand.random.normal(1, 0.1, 2)
    turn = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    mirrored = -1.0 if hand.random.random() < 0.5 else 1.0
    for number, part in enumerate(_PARTS[subject]):
        if part.age > hand.age + 0.01 or (number > 1 and hand.random.random() < 0.12 * (1 - hand.control)):
            continue
        colour = body if number == 0 or hand.random.random() < 0.55 else hand.colour()
        slip = hand.random.normal(0, 0.055 * (1 - hand.control) + 0.01, 2)
        if part.kind == "o":
            cx, cy, rx, ry = part.numbers
            at = turn @ (np.array([cx * mirrored, cy]) + slip) * size * stretch
            rx, ry = rx * size * stretch[0], ry * size * stretch[1]
            if part.filled and hand.age >= 6 and hand.random.random() < 0.55:
                hand.fill(
                    x + at[0] - rx * 0.75, y + at[1] - ry * 0.75, x + at[0] + rx * 0.75, y + at[1] + ry * 0.75, colour
                )
            hand.oval(x + at[0], y + at[1], rx, ry, colour)
            continue
        points = np.array(part.numbers).reshape(-1, 2) * (mirrored, 1.0)
        placed = ((points + slip) @ turn.T) * size * stretch + (x, y)
        if part.filled and hand.age >= 6 and hand.random.random() < 0.45:
            low, high = placed.min(axis=0), placed.max(axis=0)
            hand.fill(low[0] + 4, low[1] + 4, high[0] - 4, high[1] - 4, colour)
        hand.line(placed, colour, closed=part.kind == "c")


def _person(hand: Hand, x: float, y: float, height: float) -> None:
    """A tadpole before four; then a head on a stick, and from six on a body, hair, hands and clothes."""
    if hand.age < 4:
        _tadpole(hand, x, y, height)
    else:
        _figure(hand, x, y, height)


def _tadpole(hand: Hand, x: float, y: float, height: float) -> None:
    colour, random, radius = hand.colour(), hand.random, height * 0.3
    hand.oval(x, y - height * 0.1, radius, radius, colour)
    for side in (-1, 1):
        hand.oval(x + side * radius * 0.35, y - height * 0.16, 2.5, 2.5, colour)
        hand.line(
            np.array([(x + side * radius * 0.4, y + radius * 0.6), (x + side * radius * 0.5, y + height * 0.5)]),
            colour,
        )
        if random.random() < 0.6:
            hand.line(np.array([(x + side * radius, y - height * 0.05), (x + side * radius * 1.8, y)]), colour)
    if random.random() < 0.7:
        hand.line(np.array([(x - radius * 0.4, y), (x, y + radius * 0.2), (x + radius * 0.4, y)]), colour)


def _figure(hand: Hand, x: float, y: float, height: float) -> None:
    colour, random = hand.colour(), hand.random
    head = height * (0.17 if hand.age < 6 else 0.12)
    top = y - height * 0.34
    hand.oval(x, top, head, head, colour)
    for side in (-1, 1):
        hand.oval(x + side * head * 0.38, top - head * 0.12, 1.6, 1.6, colour)
    hand.line(
        np.array([(x - head * 0.4, top + head * 0.4), (x, top + head * 0.6), (x + head * 0.4, top + head * 0.4)]),
        colour,
    )
    neck, hip = top + head, y + height * 0.14
    broad = 0.0 if hand.age < 6 else height * 0.1
    if broad:
        _clothes(hand, x, neck, hip, broad)
        if random.random() < 0.85:
            hand.scribble(x, top - head * 0.7, head * 0.8, 11, _CRAYONS[4] if hand.only is None else hand.only)
    else:
        hand.line(np.array([(x, neck), (x, hip)]), colour)
    for side in (-1, 1):
        wrist = (x + side * (broad + height * 0.2), y - height * 0.02 + random.normal(0, 5))
        hand.line(np.array([(x + side * broad, neck + height * 0.06), wrist]), colour)
        foot = (x + side * (broad * 0.6 + height * 0.07), y + height * 0.46)
        hand.line(np.array([(x + side * broad * 0.6, hip), foot]), colour)
        if hand.age >= 7:
            hand.line(np.array([foot, (foot[0] + side * height * 0.07, foot[1] + 1)]), colour)
        if hand.age >= 8:
            for finger in (-4, 0, 4):
                hand.line(np.array([wrist, (wrist[0] + side * 7, wrist[1] + finger)]), colour)


def _clothes(hand: Hand, x: float, neck: float, hip: float, broad: float) -> None:
    cloth = hand.colour()
    if hand.random.random() < 0.5:
        corners = [(x, neck), (x - broad * 1.8, hip + 6), (x + broad * 1.8, hip + 6)]
    else:
        corners = [(x - broad, neck), (x + broad, neck), (x + broad, hip), (x - broad, hip)]
    hand.line(np.array(corners), cloth, closed=True)
    if hand.random.random() < 0.6:
        hand.fill(x - broad * 0.7, neck + 4, x + broad * 0.7, hip - 2, cloth)


def _pattern(hand: Hand, x: float, y: float, size: float) -> None:
    random = hand.random
    for _ in range(int(random.integers(2, 4 + round(4 * hand.control)))):
        at = random.normal((x, y), size * 0.55)
        kind = random.integers(3)
        if kind == 0:
            hand.scribble(
                float(at[0]), float(at[1]), size * random.uniform(0.25, 0.6), int(random.integers(8, 22)), hand.colour()
            )
        elif kind == 1:
            hand.oval(
                float(at[0]),
                float(at[1]),
                size * random.uniform(0.15, 0.5),
                size * random.uniform(0.15, 0.5),
                hand.colour(),
            )
        else:
            points = np.cumsum(random.normal(0, size * 0.35, (int(random.integers(3, 7)), 2)), axis=0) + at
            hand.line(points, hand.colour())


def _scene(hand: Hand, random: np.random.Generator, subject: str) -> None:
    """What stands around the subject from five on: ground, sun, then clouds, flowers, a second thing."""
    if random.random() < 0.6:
        y = 196 + random.normal(0, 4)
        hand.line(np.array([(4, y), (75, y + random.normal(0, 3)), (150, y), (220, y + 2)]), hand.only or _CRAYONS[2])
    if random.random() < 0.6:
        x, y, r = random.choice((28.0, 194.0)), 28 + random.normal(0, 4), random.uniform(9, 15)
        yellow = hand.only or _CRAYONS[3]
        hand.oval(x, y, r, r, yellow)
        for angle in np.arange(0, 6.2, random.uniform(0.6, 1.1)):
            way = np.array([np.cos(angle), np.sin(angle)])
            hand.line(np.array([(x, y) + way * r * 1.25, (x, y) + way * r * 1.9]), yellow)
    if hand.age >= 6 and random.random() < 0.5:
        other = "tree" if subject != "tree" else "house"
        _shape(hand, other, random.choice((32.0, 192.0)), 160, random.uniform(20, 28))
    if hand.age >= 7:
        for place in range(int(random.integers(0, 4))):
            hand.oval(60 + place * 34 + random.normal(0, 6), 24 + random.normal(0, 4), 13, 7, hand.only or _CRAYONS[1])
    if hand.age >= 8:
        for _ in range(int(random.integers(0, 6))):
            x = random.uniform(12, 212)
            hand.line(np.array([(x, 204), (x, 188)]), hand.only or _CRAYONS[2])
            hand.oval(x, 184, 4, 4, hand.colour())


def planted(kind: str, seed: int, age: float, subject: str | None = None) -> Image.Image:
    """A picture that does not belong to `age` and `subject`; `kind` is one of `KINDS`."""
    random = np.random.default_rng([seed, 977])
    if kind == "age-shifted":
        away = random.uniform(3.5, 6.0)
        other = age + away if age < 6 else age - away
        return drawing(seed, float(np.clip(other, 2.0, 11.5)), subject)
    if kind == "wrong subject":
        return drawing(seed, age, DRAWN[int(random.choice([i for i, name in enumerate(DRAWN) if name != subject]))])
    makers: dict[str, Callable[[np.random.Generator], npt.NDArray[np.float64]]] = {
        "blank": _blank,
        "noise": _noise,
        "photograph": _photograph,
    }
    return Image.fromarray(np.clip(makers[kind](random), 0, 255).astype(np.uint8))


def _blank(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Paper, perhaps with a crease of light."""
    light = np.linspace(0, random.uniform(0, 6), SIDE)[:, None, None]
    return random.uniform(240, 252) + light + random.normal(0, 0.8, (SIDE, SIDE, 3))


def _noise(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """Random grains of a random size."""
    grain = int(random.choice((1, 2, 4, 8)))
    few = random.uniform(0, 255, (SIDE // grain, SIDE // grain, 3 if random.random() < 0.6 else 1))
    return np.repeat(np.repeat(np.broadcast_to(few, (*few.shape[:2], 3)), grain, axis=0), grain, axis=1)


def _photograph(random: np.random.Generator) -> npt.NDArray[np.float64]:
    """A made-up photograph: soft light, blurred things with shading, a camera's grain; no line anywhere."""
    ground = np.zeros((SIDE, SIDE, 3))
    for octave in (4, 9, 21, 60):
        few = random.uniform(0, 255, (octave, octave, 3)).astype(np.uint8)
        ground += np.asarray(Image.fromarray(few).resize((SIDE, SIDE), Image.Resampling.BICUBIC), float) / octave**0.6
    ground *= 150 / ground.mean()
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    for _ in range(int(random.integers(2, 6))):
        x, y, r = random.uniform(20, 204), random.uniform(40, 204), random.uniform(18, 60)
        away = np.hypot(columns - x, rows - y) / r
        shade = np.clip(1.25 - np.hypot(columns - x + r * 0.4, rows - y + r * 0.4) / r, 0.15, 1.2)
        mask = np.clip((1 - away) * 6, 0, 1)[..., None]
        ground = ground * (1 - mask) + mask * shade[..., None] * random.uniform(60, 230, 3)
    soft = Image.fromarray(np.clip(ground, 0, 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(random.uniform(0.6, 1.6))
    )
    return np.asarray(soft, float) + random.normal(0, random.uniform(2, 7), (SIDE, SIDE, 3))
