"""Pictures from outside: whatever the bytes are, the answer is a picture or a sentence with 400 or 413."""

import asyncio
import base64
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI, Request, UploadFile
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from app.core import images, problems
from app.core.images import DRAWINGS, ImageError, from_base64, read_image, read_upload

FORMATS = ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"]


def file(form: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    random = np.random.default_rng(7)
    image = Image.fromarray(random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def refused(data: bytes, **options: Any) -> ImageError:
    with pytest.raises(ImageError) as caught:
        read_image(data, **options)
    return caught.value


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_photographs_are_read_by_their_bytes(form: str) -> None:
    found = read_image(file(form))
    assert (found.format, found.size, found.image.mode) == (form, (60, 40), "RGB")


def test_drawings_may_be_bitmaps_and_photographs_not() -> None:
    assert read_image(file("BMP"), formats=DRAWINGS).format == "BMP"
    assert str(refused(file("BMP"))) == "This is not an image that can be read; send JPEG, PNG or WebP."


@pytest.mark.parametrize("form", ["GIF", "TIFF", "PPM", "ICO"])
def test_other_formats_are_refused(form: str) -> None:
    assert refused(file(form), formats=DRAWINGS).status == 400


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "I;16":
        stream = io.BytesIO()
        Image.fromarray(np.full((20, 30), 32896, np.uint16)).save(stream, "PNG")
        found = read_image(stream.getvalue())
        assert found.image.getpixel((3, 3)) == (128, 128, 128)
        return
    found = read_image(file(mode=mode))
    assert (found.mode, found.image.mode, found.size) == (mode, "RGB", (60, 40))


def test_cmyk_becomes_rgb() -> None:
    found = read_image(file("JPEG", mode="CMYK"))
    assert (found.mode, found.image.mode) == ("CMYK", "RGB")


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    image.putpixel((1, 1), (0, 0, 255, 255))
    image.putpixel((2, 2), (0, 0, 0, 128))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    found = read_image(stream.getvalue()).image
    assert [found.getpixel((x, x)) for x in range(3)] == [(255, 255, 255), (0, 0, 255), (127, 127, 127)]


def test_a_transparent_palette_lies_on_white() -> None:
    image = Image.new("P", (40, 40), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 1), 1)
    stream = io.BytesIO()
    image.save(stream, "PNG", transparency=0)
    found = read_image(stream.getvalue()).image
    assert [found.getpixel((0, 0)), found.getpixel((1, 1))] == [(255, 255, 255), (200, 100, 50)]


@pytest.mark.parametrize(("turn", "expected"), [(1, (60, 40)), (3, (60, 40)), (6, (40, 60)), (8, (40, 60))])
@pytest.mark.parametrize("form", ["JPEG", "WEBP", "PNG"])
def test_a_picture_is_turned_as_the_camera_says(form: str, turn: int, expected: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    assert read_image(file(form, exif=exif)).size == expected


def test_the_corner_that_was_up_is_up() -> None:
    image = Image.new("RGB", (64, 32), "white")
    image.paste("red", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    found = read_image(stream.getvalue()).image
    assert found.getpixel((30, 2)) == (255, 0, 0)
    assert found.getpixel((2, 2)) == (255, 255, 255)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("size", [(1000, 700), (1001, 333), (250, 999), (64, 64)])
def test_a_large_picture_is_shrunk_while_it_is_decoded(form: str, size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "navy")
    image.paste("orange", (0, 0, size[0] // 2, size[1] // 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    image.save(stream, form, exif=exif)
    small = read_image(stream.getvalue(), shrink_to=100)
    assert small.size == size[::-1]
    assert max(size) < 200 or 100 <= max(small.image.size) < 230
    assert small.image.width / small.image.height == pytest.approx(size[1] / size[0], rel=0.04)
    right, left = (small.image.getpixel((int(small.image.width * x), 3)) for x in (0.9, 0.1))
    np.testing.assert_allclose([right, left], [(255, 165, 0), (0, 0, 128)], atol=14)


def test_a_large_transparent_picture_lies_on_white() -> None:
    stream = io.BytesIO()
    Image.new("RGBA", (900, 600), (0, 0, 0, 128)).save(stream, "PNG")
    small = read_image(stream.getvalue(), shrink_to=100)
    assert small.image.size == (100, 67)
    assert small.image.getcolors() == [(6700, (127, 127, 127))]


def test_an_empty_file_is_called_empty() -> None:
    assert str(refused(b"")) == "The file is empty."


def test_a_file_that_is_too_long_is_413() -> None:
    error = refused(b"\x89PNG" + bytes(images.MAX_BYTES))
    assert (error.status, str(error)) == (413, "The file is larger than 10 MB; make it smaller and try again.")
    assert error.http().status_code == 413


def test_a_small_drawing_is_refused_by_its_size() -> None:
    assert "31 x 40 pixels; at least 32 x 32" in str(refused(file(size=(31, 40)), smallest=32))
    assert read_image(file(size=(32, 32)), smallest=32).size == (32, 32)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A PNG of some bytes whose header promises more pixels than anybody can hold."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(1_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(6400, 6251), (20_000, 20_000), (100_000, 100_000), (2**31 - 1, 2**31 - 1)])
def test_a_pixel_bomb_is_refused_before_it_is_decoded(size: tuple[int, int]) -> None:
    error = refused(bomb(*size))
    assert (error.status, str(error)) == (400, "The picture has more than 40 million pixels; make it smaller.")


def test_a_bomb_inside_a_text_chunk_is_refused_or_ignored() -> None:
    whole = file()
    text = chunk(b"zTXt", b"k\x00\x00" + zlib.compress(bytes(80_000_000), 9))
    accepts_or_refuses(whole[:33] + text + whole[33:])


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.95])
def test_half_a_file_is_damaged(form: str, share: float) -> None:
    whole = file(form)
    assert refused(whole[: int(len(whole) * share)], formats=DRAWINGS).status == 400


def accepts_or_refuses(data: bytes) -> None:
    found = outcome(data)
    if isinstance(found, ImageError):
        assert found.status in {400, 413}
        assert str(found)
    else:
        assert found.image.mode == "RGB"
        assert found.image.width * found.image.height <= images.MAX_PIXELS


def outcome(data: bytes) -> images.Picture | ImageError:
    try:
        return read_image(data, formats=DRAWINGS)
    except ImageError as error:
        return error


FUZZ = settings(max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck))
WHOLE = {form: file(form, size=(24, 18)) for form in FORMATS}
HEADS = [b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x30\x00\x00\x00WEBPVP8 ", b"BM", b"GIF89a", b"II*\x00"]


@given(head=st.sampled_from(HEADS), rest=st.binary(max_size=400))
@FUZZ
def test_any_bytes_are_a_picture_or_a_sentence(head: bytes, rest: bytes) -> None:
    accepts_or_refuses(head + rest)


@given(
    form=st.sampled_from(FORMATS),
    changes=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=12),
    cut=st.integers(0, 64),
)
@FUZZ
def test_a_damaged_picture_is_a_picture_or_a_sentence(form: str, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(WHOLE[form])
    for where, value in changes:
        data[where % len(data)] = value
    accepts_or_refuses(bytes(data[: len(data) - cut]))


@given(width=st.integers(0, 2**32 - 1), height=st.integers(0, 2**32 - 1), depth=st.sampled_from([1, 8, 16, 3]))
@FUZZ
def test_whatever_size_a_header_promises_memory_stays_small(width: int, height: int, depth: int) -> None:
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )
    if 1_000_000 < width * height <= images.MAX_PIXELS:
        return  # such a picture is let in: its memory is what the pixel cap allows
    accepts_or_refuses(data)


# ---------------------------------------------------------------- how it comes


class Slow:
    """An upload that never ends, and counts what was taken from it."""

    def __init__(self) -> None:
        self.given = 0

    async def read(self, size: int = -1, /) -> bytes:
        self.given += size
        return bytes(size)


def test_an_endless_upload_is_refused_on_the_way() -> None:
    upload = Slow()
    with pytest.raises(ImageError) as caught:
        asyncio.run(read_upload(upload))
    assert caught.value.status == 413
    assert upload.given <= images.MAX_BYTES + 1024 * 1024


def test_base64_with_or_without_its_label() -> None:
    data = file()
    text = base64.b64encode(data).decode()
    assert from_base64(text) == data
    assert from_base64(f"data:image/png;base64,{text}") == data
    assert from_base64("\n".join(text[i : i + 76] for i in range(0, len(text), 76))) == data


@pytest.mark.parametrize("text", ["!", "abc", "ü", "=" * 8, "YQ==YQ", "\ud800"])
def test_what_is_no_base64_is_400(text: str) -> None:
    with pytest.raises(ImageError, match="not valid base64"):
        from_base64(text)


def test_base64_that_is_too_long_is_413_before_it_is_decoded() -> None:
    with pytest.raises(ImageError) as caught:
        from_base64("A" * (images.MAX_BYTES * 4 // 3 + 8))
    assert caught.value.status == 413


def limited() -> TestClient:
    app = FastAPI()
    problems.install(app)

    @app.post("/picture")
    async def picture(request: Request) -> int:
        return len(await request.body())

    @app.post("/form")
    async def form(file: UploadFile) -> int:
        return len(await file.read())

    app.add_api_route("/batch/form", form, methods=["POST"])
    app.add_middleware(images.UploadLimit, limit=1000, paths={"/batch": 5000})
    return TestClient(app)


@pytest.mark.parametrize(("path", "length", "status"), [("/picture", 1000, 200), ("/picture", 1001, 413)])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_body_beyond_its_limit_is_413(path: str, length: int, status: int, streamed: bool) -> None:
    body: Any = (bytes(100) for _ in range(length // 100)) if streamed else bytes(length)
    if streamed and length % 100:
        body = iter([bytes(500), bytes(length - 500)])
    answer = limited().post(path, content=body)
    assert answer.status_code == status, answer.text


def test_a_form_is_limited_while_it_arrives_and_by_its_own_path() -> None:
    def parts() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(40):
            yield bytes(100)
        yield b"\r\n--x--\r\n"

    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    refused_ = limited().post("/form", content=parts(), headers=kind)
    assert refused_.status_code == 413
    assert refused_.headers["content-type"] == "application/problem+json"
    assert limited().post("/batch/form", content=parts(), headers=kind).json() == 4000
