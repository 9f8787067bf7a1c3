"""The one place where a picture from outside is let in.

    picture = read_image(data)                                     # vision: JPEG, PNG, WebP
    picture = read_image(data, formats=DRAWINGS, smallest=32)      # drawings
    data = await read_upload(upload, limit=10 * MIB)               # from a form, refused as soon as it is too long

What a picture is, its bytes say, not its name nor its Content-Type. It comes back as RGB, turned as its EXIF says, with
transparency laid on white. Before a pixel is decoded the header must promise no more than 40 million of them, so that no small
file can fill the memory. Whatever else the bytes are, the answer is an ImageError with a sentence for the visitor.
"""

import base64
import binascii
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fastapi import HTTPException
from PIL import Image, UnidentifiedImageError
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.core import problems

MIB: Final = 1024 * 1024
MAX_BYTES: Final = 10 * MIB
MAX_PIXELS: Final = 40_000_000
"""Pixels of the largest picture let in (40 MP, as much as a phone's camera makes)."""

PHOTOS: Final = ("JPEG", "PNG", "WEBP")
DRAWINGS: Final = ("PNG", "JPEG", "BMP", "WEBP")

# Pillow warns of what is refused here
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

_NAMES: Final = {"WEBP": "WebP"}
_CHUNK: Final = 256 * 1024
_STRIP: Final = 64
_ORIENTATION: Final = 0x0112
_QUARTER: Final = 5  # from this value on height and width change places
_TURNED: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# 40 MP are 160 MB: one at a time bounds the memory of a worker, however many visitors come
_TURN: Final = threading.Lock()
# what Pillow's decoders are known to raise for broken files
_BROKEN: Final = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    IndexError,
    KeyError,
    OverflowError,
    MemoryError,
    RuntimeError,
    NotImplementedError,
    AttributeError,
    ZeroDivisionError,
    AssertionError,
    EOFError,
    UnidentifiedImageError,
    struct.error,
    zlib.error,
)


class ImageError(ValueError):
    """The bytes are no picture that is let in; the text is for the visitor, `status` is 400 or 413."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status

    def http(self) -> HTTPException:
        """The same as an answer of the API."""
        return HTTPException(self.status, str(self))


@dataclass(frozen=True)
class Picture:
    """A picture that was let in.

    Attributes:
        image: RGB, upright; smaller than the file's when it was asked for with `shrink_to`.
        size: Width and height of the file's picture, upright, in pixels.
        format: JPEG, PNG, WEBP or BMP, as its bytes say.
        mode: Pillow's mode of the file (RGB, RGBA, L, P, CMYK, ...).
        bytes: Length of the file.
    """

    image: Image.Image
    size: tuple[int, int]
    format: str
    mode: str
    bytes: int


class Upload(Protocol):
    """What can be read bit by bit: FastAPI's UploadFile."""

    async def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes."""
        ...


class UploadLimit:
    """Middleware that refuses a request body beyond a limit with 413: at once by its Content-Length, else while it arrives.

        app.add_middleware(UploadLimit, limit=11 * MIB, paths={"/api/v1/batch": 128 * MIB})

    A path takes the limit of the longest entry of `paths` that it begins with.
    """

    def __init__(self, app: ASGIApp, limit: int, paths: Mapping[str, int] | None = None) -> None:
        self._app = app
        self._limits = sorted((paths or {}).items(), key=lambda item: -len(item[0]))
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = next((most for path, most in self._limits if scope["path"].startswith(path)), self._limit)
        refusal = f"The request is larger than {limit // MIB} MB; send smaller or fewer files."
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > limit:
            await problems.problem(413, refusal, instance=scope["path"])(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, refusal)
            return message

        await self._app(scope, counted, send)


def too_large(limit: int = MAX_BYTES) -> ImageError:
    """The refusal of a file that is too long."""
    return ImageError(f"The file is larger than {limit // MIB} MB; make it smaller and try again.", 413)


async def read_upload(upload: Upload, limit: int = MAX_BYTES) -> bytes:
    """The bytes of an upload. Raises ImageError (413) as soon as there are more than `limit`."""
    received = bytearray()
    while part := await upload.read(_CHUNK):
        received += part
        if len(received) > limit:
            raise too_large(limit)
    return bytes(received)


def from_base64(text: str, limit: int = MAX_BYTES) -> bytes:
    """The bytes of a picture that came as base64, perhaps as a `data:` URL. Raises ImageError."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    text = "".join(text.split())
    if len(text) > (limit + 2) // 3 * 4:
        raise too_large(limit)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("The picture is not valid base64.") from None


def read_image(
    data: bytes,
    *,
    formats: Sequence[str] = PHOTOS,
    limit: int = MAX_BYTES,
    max_pixels: int = MAX_PIXELS,
    smallest: int = 1,
    shrink_to: int | None = None,
) -> Picture:
    """Let a picture in.

    Args:
        data: The file.
        formats: What it may be, as Pillow calls it.
        limit: Longest file in bytes.
        max_pixels: Most pixels, by what the header says.
        smallest: Fewest pixels a side.
        shrink_to: Give a picture whose longest side is at least this, when more is not needed: a large one is then shrunk by a
            whole factor while it is decoded, and takes a fraction of the memory.

    Raises:
        ImageError: With a sentence for the visitor and the status of the answer (400, or 413 when it is too long).
    """
    if not data:
        raise ImageError("The file is empty.")
    if len(data) > limit:
        raise too_large(limit)
    named = _named(formats)
    with _TURN:
        try:
            # only these decoders are tried: what the others would do with a hostile file does not matter
            opened = Image.open(io.BytesIO(data), formats=list(formats))
        except Image.DecompressionBombError:
            raise _bomb(max_pixels) from None
        except _BROKEN:
            raise ImageError(f"This is not an image that can be read; send {named}.") from None
        kind, mode = str(opened.format), opened.mode
        width, height = opened.size
        if width * height > max_pixels:
            raise _bomb(max_pixels)
        if min(width, height) < smallest:
            raise ImageError(f"The picture is {width} x {height} pixels; at least {smallest} x {smallest} are needed.")
        try:
            factor = max(1, max(width, height) // shrink_to) if shrink_to else 1
            image, turned = _plain(opened, factor)
        except _BROKEN:
            raise ImageError(
                f"The {_NAMES.get(kind, kind)} file is damaged and cannot be read; save or export it again."
            ) from None
    return Picture(image, (height, width) if turned else (width, height), kind, mode, len(data))


def _plain(opened: Image.Image, factor: int) -> tuple[Image.Image, bool]:
    """Decode the first frame, shrunk by a whole factor: RGB on white, upright; and whether height and width changed places."""
    width, height = opened.size
    turn = opened.getexif().get(_ORIENTATION)
    if factor > 1:
        opened.draft(
            opened.mode, (width // factor, height // factor)
        )  # a JPEG is decoded at an eighth, quarter or half
    opened.load()
    factor = max(1, round(factor * opened.width / width))
    if factor == 1:
        image = _on_white(opened)
    else:
        # strip by strip: a second copy of a large picture is never made
        image = Image.new("RGB", (-(-opened.width // factor), -(-opened.height // factor)))
        rows = _STRIP * factor
        for top in range(0, opened.height, rows):
            strip = opened.crop((0, top, opened.width, min(top + rows, opened.height)))
            image.paste(_on_white(strip).reduce(factor), (0, top // factor))
    if turn in _TURNED:
        return image.transpose(_TURNED[turn]), turn >= _QUARTER
    return image, False


def _on_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        with_alpha = image.convert("RGBA")
        canvas = Image.new("RGBA", with_alpha.size, "white")
        canvas.alpha_composite(with_alpha)
        return canvas.convert("RGB")
    if image.mode.startswith(("I", "F")):
        # 16 bits a pixel: converting would cut everything above 255 to white
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    return image.convert("RGB")


def _bomb(max_pixels: int) -> ImageError:
    return ImageError(f"The picture has more than {max_pixels // 1_000_000} million pixels; make it smaller.")


def _named(formats: Sequence[str]) -> str:
    *first, last = (_NAMES.get(name, name) for name in formats)
    return f"{', '.join(first)} or {last}" if first else last
