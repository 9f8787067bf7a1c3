"""Draws pictures of dishes, clean and dirty, for training: every one follows from a seed, and every stain is known.

    dish = draw(7)                       # clean
    same = draw(7, level="medium")       # the same dish on the same table, dirty
    same.stains                          # where: (256, 256) bool, inside the dish

Plates, bowls and cups, seen from above, at a slant or from the side, on tables of all kinds, with patterns, bands, speckled
glaze, reflections and cutlery that are no dirt; photographs' faults (noise, blur, colour of light, compression) and, for every
fifth dish, the flat look of an illustration. Dirt is food (blobs, polygons, splashes, smears), grease, residue and scratches in
three levels, and always visible: a stain that would not be seen is drawn again, darker.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Kind = Literal["plate", "bowl", "cup"]
Level = Literal["light", "medium", "heavy"]
Pixels = npt.NDArray[Any]
"""(side, side, 3) numbers, 0 to 255; a colour is (3,)."""
Mask = npt.NDArray[Any]
"""(side, side) numbers, 0 to 1."""

KINDS: Final[tuple[Kind, ...]] = ("plate", "bowl", "cup")
LEVELS: Final[tuple[Level, ...]] = ("light", "medium", "heavy")
SIDE: Final = 256
"""Pixels a side of what `draw` gives."""

FOOD: Final = (
    (176, 52, 28),  # tomato
    (222, 138, 30),  # curry
    (104, 62, 32),  # gravy
    (62, 34, 20),  # chocolate, coffee
    (74, 98, 38),  # herbs
    (148, 30, 62),  # berries
    (206, 178, 92),  # mustard, egg
    (122, 96, 58),  # soup
)
"""Eight colours of food."""

VISIBLE: Final = 24.0
"""A stain counts where the picture changed by at least this much (sum over the three channels)."""
LEAST: Final = {"light": 0.012, "medium": 0.04, "heavy": 0.10}
"""Share of the dish that stains cover at least."""

_CANVAS: Final = 320
_ALPHA: Final = (30, 120)
_TRIES: Final = 6
_ROWS, _COLUMNS = (axis.astype(np.float32) for axis in np.mgrid[:_CANVAS, :_CANVAS])

Random = np.random.Generator


def _floats(numbers: Any) -> Pixels:
    return np.asarray(numbers, np.float32)


@dataclass(frozen=True)
class Drawn:
    """One picture.

    Attributes:
        image: RGB, 256 x 256.
        seed: The dish: pictures of one seed show one dish and belong into one part of a split.
        kind: plate, bowl or cup.
        level: How dirty, None when clean.
        dish: Where the dish is, (256, 256) bool.
        stains: Where it is dirty, (256, 256) bool; empty when clean.
    """

    image: Image.Image
    seed: int
    kind: Kind
    level: Level | None
    dish: npt.NDArray[np.bool_]
    stains: npt.NDArray[np.bool_]

    @property
    def dirty(self) -> bool:
        """Whether there is anything on it."""
        return self.level is not None


@dataclass(frozen=True)
class _Scene:
    """A clean dish: its pixels, where the dish is, and where its middle and half axes are."""

    pixels: Pixels
    dish: Mask
    kind: Kind
    flat: bool
    x: float
    y: float
    width: float
    height: float


def draw(seed: int, *, level: Level | None = None, variant: int = 0) -> Drawn:
    """Draw a dish; `variant` draws other dirt on it, through another camera."""
    scene = _scene(np.random.default_rng([seed, 1]))
    pixels, stains = scene.pixels, np.zeros((_CANVAS, _CANVAS), np.bool_)
    if level is not None:
        pixels, stains = _soil(np.random.default_rng([seed, 2, LEVELS.index(level), variant]), scene, level)
    camera = np.random.default_rng([seed, 3, 0 if level is None else 1 + LEVELS.index(level), variant])
    return Drawn(
        image=_photograph(camera, pixels, flat=scene.flat),
        seed=seed,
        kind=scene.kind,
        level=level,
        dish=_shrink(scene.dish > 0.5),
        stains=_shrink(stains),
    )


def kind_of(seed: int) -> Kind:
    """What dish a seed is, without drawing it."""
    return KINDS[int(np.random.default_rng([seed, 1]).choice(3, p=[0.5, 0.28, 0.22]))]


# ---------------------------------------------------------------- the clean dish


def _scene(random: Random) -> _Scene:
    kind = KINDS[int(random.choice(3, p=[0.5, 0.28, 0.22]))]
    flat = bool(random.random() < 0.22)
    side_view = kind != "plate" and not flat and random.random() < 0.35
    table = _table(random, plain=flat)
    if side_view:
        return _from_the_side(random, table, kind)
    return _from_above(random, table, kind, flat=flat)


def _table(random: Random, *, plain: bool) -> Pixels:
    """What the dish stands on."""
    base = _colour(random, ((0.45, "light"), (0.3, "wood"), (0.15, "any"), (0.1, "dark")))
    if plain:
        grey = random.uniform(215, 255) if random.random() < 0.8 else random.uniform(60, 215)
        base = _floats([grey, grey, grey]) + random.normal(0, 3, 3)
    table = np.empty((_CANVAS, _CANVAS, 3), np.float32)
    table[:] = base
    if plain:
        return np.asarray(table + random.normal(0, random.choice([0, 1.5, 3]), (_CANVAS, _CANVAS, 1)))
    other = base + random.uniform(-60, 60, 3)
    pattern: Callable[[Random], Mask] = _PATTERNS[int(random.choice(len(_PATTERNS), p=_PATTERN_SHARES))]
    table += pattern(random)[..., None] * (other - base) * random.uniform(0.2, 0.9)
    light = _slope(random) * random.uniform(0, 0.35)
    return np.asarray(table * (1 - light[..., None]))


def _clouds(random: Random, cells: int = 0) -> Mask:
    """Soft noise between 0 and 1."""
    cells = cells or int(random.integers(3, 12))
    coarse = random.random((cells, cells)).astype(np.float32)
    image = Image.fromarray(coarse, "F").resize((_CANVAS, _CANVAS), Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.asarray(image), 0, 1))


def _plain(_: Random) -> Mask:
    return np.zeros((_CANVAS, _CANVAS), np.float32)


def _wood(random: Random) -> Mask:
    angle = random.uniform(0, math.pi)
    along = _COLUMNS * math.cos(angle) + _ROWS * math.sin(angle)
    rings = along * random.uniform(0.05, 0.3) + _clouds(random, 4) * random.uniform(2, 10)
    return np.asarray(0.5 + 0.5 * np.sin(rings), np.float32)


def _stripes(random: Random) -> Mask:
    angle, step = random.uniform(0, math.pi), random.uniform(8, 60)
    along = _COLUMNS * math.cos(angle) + _ROWS * math.sin(angle)
    return np.asarray((along // step) % 2, np.float32)


def _check(random: Random) -> Mask:
    angle, step = random.uniform(0, math.pi / 2), random.uniform(14, 50)
    one = (_COLUMNS * math.cos(angle) + _ROWS * math.sin(angle)) // step % 2
    two = (_ROWS * math.cos(angle) - _COLUMNS * math.sin(angle)) // step % 2
    return np.asarray((one + two) / 2, np.float32)


def _grain(random: Random) -> Mask:
    return random.random((_CANVAS, _CANVAS)).astype(np.float32) * random.uniform(0.1, 0.7)


_PATTERNS: Final = (_plain, _clouds, _wood, _stripes, _check, _grain)
_PATTERN_SHARES: Final = (0.22, 0.2, 0.26, 0.1, 0.1, 0.12)


def _slope(random: Random) -> Mask:
    """A gradient from 0 to 1 in some direction."""
    angle = random.uniform(0, 2 * math.pi)
    along = (_COLUMNS * math.cos(angle) + _ROWS * math.sin(angle)) / _CANVAS
    return np.asarray((along - along.min()) / (np.ptp(along) + 1e-6), np.float32)


def _colour(random: Random, shares: tuple[tuple[float, str], ...]) -> Pixels:
    name = shares[int(random.choice(len(shares), p=[share for share, _ in shares]))][1]
    if name == "white":
        return _floats(random.uniform(218, 254) + random.normal(0, 4, 3))
    if name == "light":
        return _floats(random.uniform(190, 250) + random.normal(0, 8, 3))
    if name == "pastel":
        return _floats(random.uniform(190, 252, 3))
    if name == "wood":
        tone = random.uniform(0.45, 1.25)
        return _floats([176, 128, 84]) * tone + random.normal(0, 10, 3).astype(np.float32)
    if name == "dark":
        return _floats(random.uniform(18, 80) + random.normal(0, 8, 3))
    return _floats(random.uniform(30, 235, 3))


_GLAZE: Final = ((0.5, "white"), (0.27, "pastel"), (0.14, "any"), (0.09, "dark"))


def _from_above(random: Random, table: Pixels, kind: Kind, *, flat: bool) -> _Scene:
    low, high = {"plate": (0.27, 0.47), "bowl": (0.2, 0.42), "cup": (0.13, 0.3)}[kind]
    width = _CANVAS * random.uniform(low, high)
    height = width * (1.0 if flat or random.random() < 0.45 else random.uniform(0.62, 1.0))
    x, y = _CANVAS / 2 + random.uniform(-0.07, 0.07, 2) * _CANVAS * (0.3 if flat else 1)
    power = 2.0 if kind != "plate" or random.random() < 0.85 else random.uniform(3, 8)
    turn = 0.0 if height < width * 0.97 or power == 2 else random.uniform(0, math.pi / 2)
    across = ((_COLUMNS - x) * math.cos(turn) + (_ROWS - y) * math.sin(turn)) / width
    down = ((_ROWS - y) * math.cos(turn) - (_COLUMNS - x) * math.sin(turn)) / height
    radius = np.asarray((np.abs(across) ** power + np.abs(down) ** power) ** (1 / power), np.float32)
    dish = _edge(radius, 1.0, width)
    glaze = _colour(random, _GLAZE)
    body = np.empty_like(table)
    body[:] = glaze
    angle = np.arctan2(down, across)
    if random.random() < (0.12 if flat else 0.5):
        body = _decorate(random, body, radius, angle)
    light = random.uniform(0, 2 * math.pi)
    body = _flat_look(random, body, radius, width) if flat else _glazed_look(random, body, radius, angle, light, kind)
    pixels = table.copy()
    if kind == "cup" or (kind == "bowl" and random.random() < 0.08):
        pixels = _handle(random, pixels, (x, y), (width, height), glaze, outlined=flat)
    if not flat:
        pixels = _shadow(random, pixels, (x, y), (width, height), light)
        if random.random() < 0.18:
            pixels = _cutlery(random, pixels, x, width)
    pixels = pixels * (1 - dish[..., None]) + body * dish[..., None]
    if not flat:
        pixels = _reflections(random, pixels, dish, (x, y), width)
    return _Scene(pixels, dish, kind, flat, x, y, width, height)


def _edge(radius: Mask, at: float, width: float) -> Mask:
    """1 inside a radius, 0 outside, one pixel of transition."""
    return np.asarray(np.clip((at - radius) * width + 0.5, 0, 1), np.float32)


def _flat_look(random: Random, body: Pixels, radius: Mask, width: float) -> Pixels:
    """An illustration: one colour, an outline, perhaps a ring and a round highlight."""
    line = body * random.uniform(0.62, 0.85) if random.random() < 0.3 else _floats(random.uniform(120, 205, 3).mean())
    thick = random.uniform(1.5, 5) / width
    if random.random() < 0.7:
        ring = random.uniform(0.62, 0.95)
        on_ring = (np.abs(radius - ring) < random.uniform(0.5, 3) / width)[..., None]
        body = np.where(on_ring, body * 0.6 + line * 0.4, body)
    if random.random() < 0.7:
        shift, size = random.uniform(0.2, 0.45), random.uniform(0.18, 0.42)
        left, up = _COLUMNS - _CANVAS / 2 + shift * width, _ROWS - _CANVAS / 2 + shift * width
        spot = _edge(np.hypot(left, up) / (size * width), 1.0, size * width)[..., None]
        body = body + (255 - body) * spot * random.uniform(0.3, 0.95)
    return np.where((radius > 1 - thick)[..., None], line, body).astype(np.float32)


def _glazed_look(random: Random, body: Pixels, radius: Mask, angle: Mask, light: float, kind: Kind) -> Pixels:
    """Shading of a rim, a well and, in a bowl, a depth."""
    facing = np.cos(angle - light)
    well = random.uniform(0.55, 0.82) if kind == "plate" else random.uniform(0.78, 0.94)
    shade = np.zeros_like(radius)
    shade += np.exp(-(((radius - well) / random.uniform(0.015, 0.06)) ** 2)) * facing * random.uniform(0.03, 0.22)
    shade += np.where(radius > well, facing * random.uniform(0, 0.14), 0)
    shade += np.exp(-(((radius - 1) / random.uniform(0.02, 0.05)) ** 2)) * random.uniform(-0.25, 0.12)
    if kind != "plate":
        depth = np.clip(1 - radius / well, 0, 1)
        shade -= depth * random.uniform(0, 0.3)
        shade -= np.where(radius < well, facing * (radius / well) * random.uniform(0, 0.3), 0)
    shade += facing * radius * random.uniform(-0.1, 0.1)
    return np.asarray(body * (1 + shade)[..., None], np.float32)


def _decorate(random: Random, body: Pixels, radius: Mask, angle: Mask) -> Pixels:
    """Bands, dots, petals, a motif, speckles or two glazes: what is painted on a clean dish."""
    colour = _colour(random, ((0.6, "any"), (0.25, "dark"), (0.15, "pastel")))
    strength = random.uniform(0.25, 0.95)
    marks = np.zeros_like(radius)
    for choice in random.choice(6, int(random.integers(1, 3)), replace=False, p=[0.3, 0.17, 0.13, 0.12, 0.16, 0.12]):
        if choice == 0:
            for at in random.uniform(0.3, 0.99, int(random.integers(1, 4))):
                marks = np.maximum(marks, np.abs(radius - at) < random.uniform(0.006, 0.05))
        elif choice == 1:
            count, at = int(random.integers(8, 40)), random.uniform(0.75, 0.93)
            marks = np.maximum(marks, (np.abs(radius - at) < 0.03) & (np.cos(angle * count) > random.uniform(0, 0.8)))
        elif choice == 2:
            count, reach = int(random.integers(4, 14)), random.uniform(0.2, 0.9)
            marks = np.maximum(marks, radius < reach * np.abs(np.cos(angle * count / 2)))
        elif choice == 3:
            marks = np.maximum(marks, radius < random.uniform(0.2, 0.5))
        elif choice == 4:
            size = int(random.integers(60, 200))
            specks = (random.random((size, size)) > random.uniform(0.93, 0.995)).astype(np.float32)
            wide = Image.fromarray(specks, "F").resize((_CANVAS, _CANVAS), Image.Resampling.BILINEAR)
            marks = np.maximum(marks, np.asarray(wide))
        else:
            marks = np.maximum(marks, np.clip((radius - random.uniform(0.4, 0.9)) * random.uniform(4, 40), 0, 1))
    weight = np.asarray(marks, np.float32)[..., None] * strength
    return np.asarray(body * (1 - weight) + colour * weight, np.float32)


def _layer(paint: "Paint", blur: float = 0.0) -> Mask:
    """What is painted in white on black, between 0 and 1."""
    image = Image.new("L", (_CANVAS, _CANVAS))
    paint(ImageDraw.Draw(image))
    painted = image.getbbox()
    if blur and painted:
        around = math.ceil(4 * blur) + 4
        box = (
            max(0, painted[0] - around),
            max(0, painted[1] - around),
            min(_CANVAS, painted[2] + around),
            min(_CANVAS, painted[3] + around),
        )
        image.paste(image.crop(box).filter(ImageFilter.GaussianBlur(blur)), box)
    return np.asarray(image, np.float32) / 255


def _over(pixels: Pixels, layer: Mask, colour: Any, alpha: float = 1.0) -> Pixels:
    """A colour through a layer; only where the layer is anything."""
    done = np.array(pixels, np.float32)
    rows, columns = np.flatnonzero(layer.any(axis=1)), np.flatnonzero(layer.any(axis=0))
    if len(rows):
        part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        weight = layer[part][..., None] * alpha
        done[part] = pixels[part] * (1 - weight) + _floats(colour) * weight
    return done


def _box(x: float, y: float, width: float, height: float) -> list[float]:
    return [x - width, y - height, x + width, y + height]


Paint = Callable[[ImageDraw.ImageDraw], None]


def _ellipse(box: list[float]) -> Paint:
    return lambda pen: pen.ellipse(box, fill=255)


def _polygon(corners: list[tuple[float, float]]) -> Paint:
    return lambda pen: pen.polygon(corners, fill=255)


def _shadow(
    random: Random, pixels: Pixels, middle: tuple[float, float], size: tuple[float, float], light: float
) -> Pixels:
    reach = size[0] * random.uniform(0.02, 0.2)
    x, y = middle[0] - math.cos(light) * reach, middle[1] - math.sin(light) * reach
    box = _box(x, y, size[0] * 1.03, size[1] * 1.03)
    layer = _layer(lambda pen: pen.ellipse(box, fill=255), random.uniform(3, 16))
    return _over(pixels, layer, pixels.mean(axis=(0, 1)) * 0.25, random.uniform(0.1, 0.6))


def _handle(
    random: Random,
    pixels: Pixels,
    middle: tuple[float, float],
    size: tuple[float, float],
    glaze: Pixels,
    *,
    outlined: bool,
) -> Pixels:
    turn = random.uniform(-0.6, 0.6)
    x, y = middle[0] + math.cos(turn) * size[0], middle[1] + math.sin(turn) * size[1]
    box, thick = _box(x, y, size[0] * 0.42, size[0] * random.uniform(0.25, 0.5)), max(3, int(size[0] * 0.13))
    if outlined:
        box, thick = _box(x, y, size[0] * 0.25, size[0] * 0.3), 3
    layer = _layer(lambda pen: pen.arc(box, -110, 110, fill=255, width=thick), 0.7)
    return _over(pixels, layer, glaze * (0.7 if outlined else random.uniform(0.7, 1.0)))


def _cutlery(random: Random, pixels: Pixels, x: float, width: float) -> Pixels:
    """A knife, fork or spoon beside the dish."""
    place = x + random.choice([-1, 1]) * (width + random.uniform(14, 34))
    top, bottom, lean = random.uniform(40, 110), random.uniform(210, 290), random.uniform(-14, 14)
    head = random.uniform(5, 12)

    def paint(pen: ImageDraw.ImageDraw) -> None:
        pen.line([place, bottom, place + lean, top], fill=255, width=int(head * 0.7))
        pen.ellipse(_box(place + lean, top, head, head * 2.2), fill=255)

    metal = random.uniform(130, 225)
    pixels = _over(pixels, np.roll(_layer(paint, 4), (4, 4), (0, 1)), pixels.mean(axis=(0, 1)) * 0.4, 0.5)
    return _over(pixels, _layer(paint, 0.6), (metal, metal, metal + 4))


def _reflections(random: Random, pixels: Pixels, dish: Mask, middle: tuple[float, float], width: float) -> Pixels:
    """Lamps and windows in the glaze."""
    for _ in range(int(random.integers(0, 4))):
        x, y = _floats(middle) + random.uniform(-0.7, 0.7, 2) * width
        size = width * random.uniform(0.04, 0.35)
        if random.random() < 0.6:
            box = _box(x, y, size, size * random.uniform(0.3, 1))
            layer = _layer(_ellipse(box), size * random.uniform(0.1, 0.6))
        else:
            corners = [
                (x + size * math.cos(a) * 0.8, y + size * math.sin(a))
                for a in random.uniform(0, 0.6) + np.arange(4) * 1.57
            ]
            layer = _layer(_polygon(corners), random.uniform(0.5, 4))
        pixels = _over(pixels, layer * dish, (255, 255, 252), random.uniform(0.1, 0.8))
    return pixels


def _from_the_side(random: Random, table: Pixels, kind: Kind) -> _Scene:
    """A cup, a glass or a bowl as it stands before the viewer."""
    wide = kind == "bowl"
    width = _CANVAS * (random.uniform(0.24, 0.4) if wide else random.uniform(0.14, 0.28))
    height = width * (random.uniform(0.45, 0.75) if wide else random.uniform(0.8, 1.5))
    x = _CANVAS / 2 + random.uniform(-0.06, 0.06) * _CANVAS
    y = _CANVAS * random.uniform(0.46, 0.56)
    foot = width * (random.uniform(0.35, 0.65) if wide else random.uniform(0.62, 1.0))
    lip = width * random.uniform(0.12, 0.34)
    glass = not wide and random.random() < 0.25
    glaze = _colour(random, ((0.6, "light"), (0.4, "pastel"))) if glass else _colour(random, _GLAZE)

    def outline(pen: ImageDraw.ImageDraw) -> None:
        points = []
        for share in np.linspace(0, 1, 14):
            bend = share ** (2.2 if wide else 1.2)
            points.append((width + (foot - width) * bend, y - height + 2 * height * share))
        pen.polygon([(x - half, at) for half, at in points] + [(x + half, at) for half, at in points[::-1]], fill=255)
        pen.ellipse(_box(x, y + height, foot, lip * 0.4), fill=255)
        pen.ellipse(_box(x, y - height, width, lip), fill=255)

    dish = _layer(outline, 0.7)
    opening = _layer(lambda pen: pen.ellipse(_box(x, y - height, width, lip), fill=255), 0.7)
    across = (_COLUMNS - x) / width
    body = np.empty_like(table)
    body[:] = glaze
    if random.random() < 0.4:
        body = _decorate(random, body, np.abs(_ROWS - y) / height, across * 3)
    light = random.uniform(-0.5, 0.5)
    shade = 1.05 - random.uniform(0.15, 0.5) * np.abs(across - light)
    shade = shade + np.exp(-(((across - light) / random.uniform(0.05, 0.2)) ** 2)) * random.uniform(0, 0.3)
    body = body * np.clip(shade, 0.3, 1.5)[..., None]
    inside = body * random.uniform(0.7, 0.95)
    body = body * (1 - opening[..., None]) + inside * opening[..., None]
    pixels = _shadow(random, table, (x, y + height), (foot * 1.1, lip * 0.8), random.uniform(0, 6.28))
    if not wide and not (glass and random.random() < 0.8):
        pixels = _handle(random, pixels, (x, y), (width, height * 0.3), glaze, outlined=False)
    weight = dish[..., None] * (random.uniform(0.35, 0.7) if glass else 1.0)
    pixels = pixels * (1 - weight) + body * weight
    rim = _layer(lambda pen: pen.ellipse(_box(x, y - height, width, lip), outline=255, width=3), 0.6)
    pixels = _over(pixels, rim, glaze * random.uniform(0.6, 1.1), 0.8)
    pixels = _reflections(random, np.asarray(pixels, np.float32), dish, (x, y), width)
    return _Scene(pixels, dish, kind, False, x, y, width, height)  # noqa: FBT003 - the order of the fields


# ---------------------------------------------------------------- dirt


def _soil(random: Random, scene: _Scene, level: Level) -> tuple[Pixels, npt.NDArray[np.bool_]]:
    """Put dirt on a dish until enough of it can be seen; returns the pixels and where they changed."""
    area = max(1.0, float(scene.dish.sum()))
    pixels = scene.pixels
    for attempt in range(_TRIES):
        pixels = _layers(random, scene, level, pixels, attempt)
        stains = (np.abs(np.clip(pixels, 0, 255) - np.clip(scene.pixels, 0, 255)).sum(axis=2) >= VISIBLE) & (
            scene.dish > 0.5
        )
        if stains.sum() / area >= LEAST[level]:
            return pixels, stains
    # whatever the glaze: something that is as far from it as can be
    mean = (np.clip(scene.pixels, 0, 255) * scene.dish[..., None]).sum() / (3 * area)
    colour = (40, 24, 14) if mean > 110 else (236, 226, 206)
    spread = scene.width * math.sqrt(LEAST[level]) * 1.6
    box = _box(scene.x, scene.y, spread, spread * min(1.0, scene.height / scene.width))
    layer = _layer(lambda pen: pen.ellipse(box, fill=255), 1.5) * scene.dish
    pixels = _over(pixels, layer, colour, 120 / 255)
    change = np.abs(np.clip(pixels, 0, 255) - np.clip(scene.pixels, 0, 255)).sum(axis=2)
    return pixels, (change >= VISIBLE) & (scene.dish > 0.5)


def _layers(random: Random, scene: _Scene, level: Level, pixels: Pixels, attempt: int) -> Pixels:
    """One round of dirt of this level, stronger with every attempt."""
    low, high = _ALPHA
    strength = min(1.0, {"light": 0.45, "medium": 0.7, "heavy": 1.0}[level] + 0.15 * attempt)
    count = {"light": (2, 4), "medium": (3, 7), "heavy": (5, 9)}[level]
    size = {"light": 0.6, "medium": 0.85, "heavy": 1.1}[level]
    what = random.random(4)
    if what[0] < 0.88 or attempt:
        palette = random.choice(len(FOOD), int(random.integers(1, 4)))
        for _ in range(int(random.integers(*count))):
            colour = _floats(FOOD[int(random.choice(palette))]) + random.uniform(-22, 22, 3)
            alpha = random.uniform(low + (high - low) * (strength - 0.3), high) / 255
            layer = _stain(random, scene, size)
            if random.random() < 0.4:
                layer = layer * (0.4 + 0.6 * _clouds(random, int(random.integers(8, 40))))
            pixels = _over(pixels, layer * scene.dish, colour, float(np.clip(alpha, low / 255, high / 255)))
    if what[1] < 0.35:
        for _ in range(int(random.integers(1, 5))):
            x, y = _somewhere(random, scene)
            reach = scene.width * random.uniform(0.1, 0.35) * size
            layer = _layer(_ellipse(_box(x, y, reach, reach)), reach * 0.3)
            colour = _floats((188, 168, 96)) + random.uniform(-20, 20, 3)
            pixels = _over(pixels, layer * scene.dish, colour, random.uniform(0.12, 0.4) * strength)
    if what[2] < 0.35:
        light = np.clip(scene.pixels, 0, 255).mean() < 150
        for _ in range(int(random.integers(5, 16))):
            x, y = _somewhere(random, scene)
            reach = scene.width * random.uniform(0.012, 0.05)
            layer = _layer(_ellipse(_box(x, y, reach, reach * 0.8)), 0.8)
            colour = _floats((238, 232, 214) if light or random.random() < 0.3 else (150, 130, 96))
            pixels = _over(pixels, layer * scene.dish, colour, random.uniform(0.25, 0.6))
    if what[3] < 0.25:
        layer = _scratches(random, scene)
        pixels = _over(pixels, layer * scene.dish, random.uniform(70, 130, 3), random.uniform(0.2, 0.5))
    return pixels


def _somewhere(random: Random, scene: _Scene) -> tuple[float, float]:
    """A place on the dish, more often in its middle."""
    angle, reach = random.uniform(0, 2 * math.pi), random.uniform(0, 0.92) ** 0.7
    return scene.x + math.cos(angle) * reach * scene.width, scene.y + math.sin(angle) * reach * scene.height


def _stain(random: Random, scene: _Scene, size: float) -> Mask:
    """The shape of one food stain: a blob, a polygon, a splash or a smear."""
    x, y = _somewhere(random, scene)
    reach = scene.width * random.uniform(0.06, 0.34) * size
    kind = int(random.choice(4, p=[0.3, 0.2, 0.22, 0.28]))
    angles = np.linspace(0, 2 * math.pi, int(random.integers(5, 14)), endpoint=False)
    lengths = reach * random.uniform(0.45, 1.2, len(angles))
    squeeze = random.uniform(0.5, 1.0)
    corners = [(x + math.cos(a) * r, y + math.sin(a) * r * squeeze) for a, r in zip(angles, lengths, strict=True)]
    drops = [
        (*(_floats((x, y)) + random.normal(0, reach * 1.1, 2)), random.uniform(0.01, 0.07) * scene.width)
        for _ in range(int(random.integers(4, 22)))
    ]
    bow, length = random.uniform(0, 2 * math.pi), random.uniform(0.4, 1.6)
    strokes = [
        (
            *(_floats((x, y)) + random.normal(0, reach * 0.7, 2)),
            reach * random.uniform(0.2, 1.0),
            random.uniform(0, 0.9),
        )
        for _ in range(int(random.integers(3, 16)))
    ]

    def paint(pen: ImageDraw.ImageDraw) -> None:
        if kind == 0:
            pen.polygon(corners, fill=255)
            pen.ellipse(_box(x, y, reach * 0.8, reach * 0.8 * squeeze), fill=255)
        elif kind == 1:
            pen.polygon(corners, fill=255)
        elif kind == 2:
            for left, top, drop in drops:
                pen.ellipse(_box(left, top, drop, drop), fill=255)
        else:
            for left, top, arc, shift in strokes:
                begin = math.degrees(bow + shift)
                width = max(2, int(reach * 0.09))
                pen.arc(_box(left, top, arc + 1, arc + 1), begin, begin + 100 * length, fill=255, width=width)

    return _layer(paint, random.uniform(0.5, 2.5) if kind != 0 else random.uniform(0.8, 6))


def _scratches(random: Random, scene: _Scene) -> Mask:
    lines = []
    for _ in range(int(random.integers(2, 9))):
        x, y = _somewhere(random, scene)
        angle, length = random.uniform(0, math.pi), scene.width * random.uniform(0.1, 0.6)
        lines.append((x, y, x + math.cos(angle) * length, y + math.sin(angle) * length))

    def paint(pen: ImageDraw.ImageDraw) -> None:
        for line in lines:
            pen.line(line, fill=255, width=2)

    return _layer(paint, 0.5)


# ---------------------------------------------------------------- the camera


def _photograph(random: Random, pixels: Pixels, *, flat: bool) -> Image.Image:
    """The faults of a photograph: light, contrast, noise, blur, compression."""
    taken = pixels
    if not flat:
        taken = taken * random.normal(1, 0.03, 3).astype(np.float32) * random.uniform(0.72, 1.12)
        taken = (taken - 128) * random.uniform(0.8, 1.12) + 128
    noise = random.uniform(0, 2.5 if flat else 6)
    taken = np.clip(taken + random.normal(0, noise, taken.shape), 0, 255)
    image = Image.fromarray(taken.astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    if not flat and random.random() < 0.35:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.3, 1.1)))
    if random.random() < 0.6:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=int(random.integers(55, 96)))
        image = Image.open(stream).convert("RGB")
    return image


def _shrink(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    small = Image.fromarray(mask.astype(np.uint8) * 255).resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(small) > 127
