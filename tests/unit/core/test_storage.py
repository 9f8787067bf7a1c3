"""One behaviour, two storages: a folder, and S3 as moto serves it."""

import errno
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from app.core.storage import FolderStorage, NotFound, S3Storage, Storage, StorageError, check_key, open_storage

HOSTILE = [
    "",
    "/etc/passwd",
    "../secret",
    "a/../../b",
    "a/./b",
    "a//b",
    "a/",
    ".hidden",
    "a/.hidden",
    "a\\..\\b",
    "a\x00b",
    "a\nb",
    "C:/x",
    "~root/x",
    "%2e%2e/x",
    "ä",
    "a" * 600,
    "a/" + "b" * 201,
    "-rf",
]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def s3_environment(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "eu-central-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture(params=["folder", "s3", "s3-prefix"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return open_storage(f"file://{tmp_path}/with%20space/storage")
    request.getfixturevalue("s3_environment")
    bucket = f"b-{abs(hash(request.node.name)):x}-{os.getpid()}"[:60]
    made = open_storage(f"s3://{bucket}/some/prefix" if request.param == "s3-prefix" else f"s3://{bucket}")
    assert isinstance(made, S3Storage)
    made._client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    return made


def test_what_is_put_is_got(storage: Storage) -> None:
    assert not storage.exists("a/b.bin")
    storage.put("a/b.bin", b"one")
    storage.put("a/b.bin", b"two \x00\xff")
    assert storage.get("a/b.bin") == b"two \x00\xff"
    assert storage.exists("a/b.bin")
    assert not storage.exists("a")
    with storage.open("a/b.bin") as file:
        assert file.read(3) == b"two"
        file.seek(0)
        assert file.read() == b"two \x00\xff"


def test_a_file_is_stored_and_stays_the_callers(storage: Storage) -> None:
    source = io.BytesIO(os.urandom(9 * 1024 * 1024))  # more than one part of an upload, more than stays in memory
    storage.put("big.bin", source)
    assert not source.closed
    with storage.open("big.bin") as file:
        assert file.read() == source.getvalue()
    (info,) = storage.list("big")
    assert info.size == 9 * 1024 * 1024
    assert info.modified.tzinfo is not None


def test_listing_is_by_prefix_and_in_order(storage: Storage) -> None:
    for key in ("m/2", "m/10", "m/1/x", "mm", "n"):
        storage.put(key, b"x")
    assert [info.key for info in storage.list()] == ["m/1/x", "m/10", "m/2", "mm", "n"]
    assert [info.key for info in storage.list("m/")] == ["m/1/x", "m/10", "m/2"]
    assert [info.key for info in storage.list("m/1")] == ["m/1/x", "m/10"]
    assert [info.key for info in storage.list("none/")] == []


def test_what_is_missing_is_not_found(storage: Storage) -> None:
    with pytest.raises(NotFound, match="nothing/here"):
        storage.get("nothing/here")
    with pytest.raises(NotFound):
        storage.open("nothing/here")
    storage.delete("nothing/here")
    storage.put("x", b"x")
    storage.delete("x")
    assert not storage.exists("x")


@pytest.mark.parametrize("key", HOSTILE)
def test_a_hostile_key_is_refused_before_anything_is_touched(storage: Storage, key: str) -> None:
    for act in (
        lambda: storage.put(key, b"x"),
        lambda: storage.get(key),
        lambda: storage.open(key),
        lambda: storage.exists(key),
        lambda: storage.delete(key),
    ):
        with pytest.raises(StorageError) as caught:
            act()
        assert not isinstance(caught.value, NotFound)
    if key not in {"", "a/"}:  # these two are good beginnings of keys
        with pytest.raises(StorageError):
            list(storage.list(key))


@given(st.text(max_size=60))
@hypothesis_settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_key_nothing_leaves_the_folder(tmp_path: Path, key: str) -> None:
    storage = FolderStorage(tmp_path / "inner" / "root")
    try:
        storage.put(key, b"x")
    except StorageError:
        pass
    else:
        assert check_key(key) == key
        storage.delete(key)
    assert [path.name for path in tmp_path.iterdir()] in ([], ["inner"])
    assert [path.name for path in (tmp_path / "inner").glob("*")] in ([], ["root"])


@pytest.mark.parametrize(
    "url", ["", "/folder", "file://host/folder", "file:relative", "s3://", "http://x/y", "s3://b/../c"]
)
def test_a_wrong_url_says_what_is_expected(url: str, s3_environment: None) -> None:
    with pytest.raises(StorageError, match=r"file:///absolute/folder or s3://bucket/prefix|not allowed"):
        open_storage(url)


class TestFolder:
    """What only a folder can get wrong."""

    def test_a_link_that_leads_out_is_refused(self, tmp_path: Path) -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("secret")
        storage = FolderStorage(tmp_path / "root")
        storage.put("x", b"x")
        (tmp_path / "root" / "link").symlink_to(outside)
        (tmp_path / "root" / "file").symlink_to(outside / "secret")
        for key in ("link/secret", "file"):
            with pytest.raises(StorageError, match="leads out"):
                storage.get(key)
        with pytest.raises(StorageError, match="leads out"):
            storage.put("link/new", b"x")
        assert [info.key for info in storage.list()] == ["x"]
        assert sorted(path.name for path in outside.iterdir()) == ["secret"]

    def test_a_reader_never_sees_half_of_an_object(self, tmp_path: Path) -> None:
        storage = FolderStorage(tmp_path)
        contents = [bytes([n]) * 300_000 for n in range(4)]
        storage.put("x", contents[0])
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                for content in contents:
                    storage.put("x", content)

        writers = [threading.Thread(target=write) for _ in range(2)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(300):
                assert storage.get("x") in contents
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert list((tmp_path / ".incoming").iterdir()) == []

    def test_a_failed_write_leaves_the_old_object_and_no_rubbish(self, tmp_path: Path) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell() > 10:
                    raise OSError(28, "No space left on device")
                return super().read(11)

        storage = FolderStorage(tmp_path)
        storage.put("x", b"old")
        with pytest.raises(StorageError, match="the disk is full"):
            storage.put("x", Broken(b"new" * 100))
        assert storage.get("x") == b"old"
        assert list((tmp_path / ".incoming").iterdir()) == []

    def test_a_key_cannot_be_a_folder_and_a_file(self, tmp_path: Path) -> None:
        storage = FolderStorage(tmp_path)
        storage.put("a/b", b"x")
        with pytest.raises(StorageError, match="folder of other keys"):
            storage.put("a", b"x")
        with pytest.raises(StorageError, match=r"a/b/c.*(not a folder|File exists)"):
            storage.put("a/b/c", b"x")
        storage.delete("a")
        assert storage.get("a/b") == b"x"


class TestS3:
    """What only S3 can get wrong."""

    def test_a_missing_bucket_is_not_a_missing_object(self, s3_environment: None) -> None:
        storage = open_storage("s3://there-is-no-such-bucket")
        with pytest.raises(StorageError, match="no bucket there-is-no-such-bucket") as caught:
            storage.get("x")
        assert not isinstance(caught.value, NotFound)

    def test_a_server_that_is_gone_is_a_sentence(self, s3_environment: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        with pytest.raises(StorageError, match="cannot read 'x' in bucket b"):
            open_storage("s3://b").get("x")

    def test_prefixes_are_worlds_of_their_own(self, s3_environment: None) -> None:
        one, two = open_storage("s3://worlds/one"), open_storage("s3://worlds/two")
        assert isinstance(one, S3Storage)
        one._client.create_bucket(Bucket="worlds", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
        one.put("x", b"1")
        assert not two.exists("x")
        assert list(two.list()) == []


def test_a_file_is_adopted_and_read_from_a_path(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(b"large" * 1000)
    storage.adopt("a/large.bin", path)
    assert not path.exists()
    assert storage.get("a/large.bin") == b"large" * 1000
    with storage.local("a/large.bin") as found:
        assert found.name == "large.bin"
        assert found.read_bytes() == b"large" * 1000
    assert storage.exists("a/large.bin")
    path.write_bytes(b"newer")
    storage.adopt("a/large.bin", path)
    assert storage.get("a/large.bin") == b"newer"
    with pytest.raises(NotFound), storage.local("a/none.bin"):
        pass
    with pytest.raises(StorageError):
        storage.adopt("../x", path)


def test_a_file_on_another_disk_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, storage = tmp_path / "x.bin", FolderStorage(tmp_path / "storage")
    path.write_bytes(b"x")
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if self == path:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    storage.adopt("x.bin", path)
    assert storage.get("x.bin") == b"x"
    assert not path.exists()


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
def test_browsers_get_addresses_of_the_endpoint_that_is_theirs(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = httpx.URL(os.environ["AWS_ENDPOINT_URL"])
    outside = inside.copy_with(host="localhost")
    monkeypatch.setenv("S3_BROWSER_ENDPOINT", str(outside))
    seen = S3Storage(storage.bucket)
    upload = seen.begin_parts("up/x.bin")
    address = httpx.URL(seen.part_url("up/x.bin", upload, 1))
    assert (address.host, address.port) == ("localhost", inside.port)
    assert httpx.put(address, content=b"whole", timeout=30).status_code == 200
    seen.finish_parts("up/x.bin", upload)
    assert storage.get("up/x.bin") == b"whole"
    assert httpx.URL(storage.part_url("up/y.bin", upload, 1)).host == inside.host


@pytest.mark.parametrize("storage", ["s3", "s3-prefix"], indirect=True)
def test_an_upload_in_parts_goes_to_the_bucket_and_goes_on_after_a_break(storage: S3Storage) -> None:
    first, last = os.urandom(5 * 1024 * 1024), b"the end"
    upload = storage.begin_parts("up/x.bin")
    assert storage.parts("up/x.bin", upload) == {}
    for number, data in ((2, last), (1, b"x" * 5 * 1024 * 1024), (1, first)):  # in any order, and again
        assert httpx.put(storage.part_url("up/x.bin", upload, number), content=data, timeout=30).status_code == 200
    assert storage.parts("up/x.bin", upload) == {1: len(first), 2: len(last)}
    assert not storage.exists("up/x.bin")
    storage.finish_parts("up/x.bin", upload)
    assert storage.get("up/x.bin") == first + last
    other = storage.begin_parts("up/y.bin")
    storage.drop_parts("up/y.bin", other)
    storage.drop_parts("up/y.bin", other)
    assert not storage.exists("up/y.bin")
