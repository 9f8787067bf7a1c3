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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from fastapi import HTTPException
from PIL import Image, ImageOps, UnidentifiedImageError

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
# decoding holds up to 3 copies of 40 MP: two at a time bound the memory of a worker, however many visitors come
_TURNS: Final = threading.BoundedSemaphore(2)
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
        image: RGB, upright.
        format: JPEG, PNG, WEBP or BMP, as its bytes say.
        mode: Pillow's mode of the file (RGB, RGBA, L, P, CMYK, ...).
        bytes: Length of the file.
    """

    image: Image.Image
    format: str
    mode: str
    bytes: int

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, upright, in pixels."""
        return self.image.size


class Upload(Protocol):
    """What can be read bit by bit: FastAPI's UploadFile."""

    async def read(self, size: int = -1, /) -> bytes:
        """Read at most `size` bytes."""
        ...


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
) -> Picture:
    """Let a picture in.

    Args:
        data: The file.
        formats: What it may be, as Pillow calls it.
        limit: Longest file in bytes.
        max_pixels: Most pixels, by what the header says.
        smallest: Fewest pixels a side.

    Raises:
        ImageError: With a sentence for the visitor and the status of the answer (400, or 413 when it is too long).
    """
    if not data:
        raise ImageError("The file is empty.")
    if len(data) > limit:
        raise too_large(limit)
    named = _named(formats)
    with _TURNS:
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
            image = _plain(opened)
        except _BROKEN:
            raise ImageError(
                f"The {_NAMES.get(kind, kind)} file is damaged and cannot be read; save or export it again."
            ) from None
    return Picture(image, kind, mode, len(data))


def _plain(opened: Image.Image) -> Image.Image:
    """Decode the first frame: upright, on white, RGB."""
    opened.load()
    turned = ImageOps.exif_transpose(opened)
    if turned.has_transparency_data:
        with_alpha = turned.convert("RGBA")
        canvas = Image.new("RGBA", with_alpha.size, "white")
        canvas.alpha_composite(with_alpha)
        return canvas.convert("RGB")
    if turned.mode.startswith(("I", "F")):
        # 16 bits a pixel: converting would cut everything above 255 to white
        return turned.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    return turned.convert("RGB")


def _bomb(max_pixels: int) -> ImageError:
    return ImageError(f"The picture has more than {max_pixels // 1_000_000} million pixels; make it smaller.")


def _named(formats: Sequence[str]) -> str:
    *first, last = (_NAMES.get(name, name) for name in formats)
    return f"{', '.join(first)} or {last}" if first else last
