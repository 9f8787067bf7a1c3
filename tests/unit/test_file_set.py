"""The module ``file_set``: a set of files is there, and nothing else of what a pattern finds."""

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args

from tests.modules import loaded

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "plugins" / "modules" / "file_set.py"


MODULE = loaded(PROGRAM)


def arguments(files: Sequence[dict[str, Any]], purge: list[str] | None, internal: dict[str, bool]) -> dict[str, Any]:
    named = {f"_ansible_{key}": value for key, value in internal.items()}
    return {"files": list(files), "purge": purge or [], **named}


def called(
    *files: dict[str, Any], purge: list[str] | None = None, check_mode: bool = False, diff: bool = False
) -> dict[str, Any]:
    """Run the whole module with its arguments as JSON; return the JSON it prints."""
    printed = io.StringIO()
    given = arguments(files, purge, {"check_mode": check_mode, "diff": diff})
    with patch_module_args(given), contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as ended:
        MODULE.main()
    answer: dict[str, Any] = json.loads(printed.getvalue())
    assert ended.value.code == (1 if answer.get("failed") else 0)
    return answer


def entry(path: Path, content: str = "text\n", **extra: Any) -> dict[str, Any]:
    return {"path": str(path), "content": content, **extra}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_set_is_written_once(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "new" / "folder" / "two"
    files = [entry(one, "Grüße 🍷\n"), entry(two, "", mode="0640")]
    first = called(*files)
    assert (first["changed"], first["written"], first["removed"]) == (True, [str(one), str(two)], [])
    assert (one.read_text(), mode(one)) == ("Grüße 🍷\n", 0o644)
    assert (two.read_text(), mode(two)) == ("", 0o640)
    stamps = [path.stat().st_mtime_ns for path in (one, two)]
    second = called(*files)
    assert (second["changed"], second["written"]) == (False, [])
    assert [path.stat().st_mtime_ns for path in (one, two)] == stamps


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("same", "content", "mode")]
    called(*(entry(path) for path in paths))
    paths[1].write_text("changed by somebody\n")
    paths[2].chmod(0o600)
    assert called(*(entry(path) for path in paths))["written"] == [str(paths[1]), str(paths[2])]
    assert paths[1].read_text() == "text\n"
    assert mode(paths[2]) == 0o644


@pytest.mark.parametrize("wanted", ["a\r\nb\r\n", "a\rb", "a\nb\n", "no end", "\n\n", "\ufeffx"])
def test_a_text_is_written_byte_for_byte(tmp_path: Path, wanted: str) -> None:
    path = tmp_path / "file"
    assert called(entry(path, wanted))["changed"]
    assert path.read_bytes() == wanted.encode()
    assert not called(entry(path, wanted))["changed"]


def test_other_line_ends_are_a_difference(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"a\r\nb\r\n")
    assert called(entry(path, "a\nb\n"))["changed"]
    assert path.read_bytes() == b"a\nb\n"


def test_a_binary_file_is_replaced_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)))
    assert called(entry(path), diff=True)["changed"]
    assert path.read_text() == "text\n"


def test_folders_can_be_read_whatever_the_umask_is(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "pergola" / "site.json"
    old = os.umask(0o077)
    try:
        called(entry(path))
    finally:
        os.umask(old)
    assert [mode(folder) for folder in (path.parent, path.parent.parent)] == [0o755, 0o755]
    assert mode(path) == 0o644


def test_a_secret_is_never_readable_on_its_way(tmp_path: Path) -> None:
    """Its temporary file starts with mode 0600, not with the wanted one."""
    path = tmp_path / "secret"
    called(entry(path, "x", mode="0600"))
    assert mode(path) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["secret"]


def test_a_link_is_replaced_and_not_written_through(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "link"
    other.write_text("precious")
    path.symlink_to(other)
    assert called(entry(path))["changed"]
    assert other.read_text() == "precious"
    assert not path.is_symlink()


def test_what_a_killed_run_left_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "file"
    (tmp_path / ".file.new").write_text("half")
    assert called(entry(path))["changed"]
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_check_mode_says_all_and_writes_nothing(tmp_path: Path) -> None:
    kept, old = tmp_path / "kept", tmp_path / "old.conf"
    kept.write_text("before\n")
    old.write_text("old\n")
    new = tmp_path / "folder" / "new"
    answer = called(entry(kept, "after\n"), entry(new), purge=[f"{tmp_path}/*.conf"], check_mode=True, diff=True)
    assert (answer["changed"], answer["written"], answer["removed"]) == (True, [str(kept), str(new)], [str(old)])
    assert (kept.read_text(), old.read_text()) == ("before\n", "old\n")
    assert not new.parent.exists()
    shown = {part["before_header"]: (part["before"], part["after"]) for part in answer["diff"]}
    assert shown == {str(kept): ("before\n", "after\n"), str(new): ("", "text\n"), str(old): ("old\n", "")}


# ---------------------------------------------------------------- purge


def test_what_is_left_over_is_removed_with_its_empty_folder(tmp_path: Path) -> None:
    wanted = tmp_path / "a.service.d" / "app.conf"
    gone, shared = tmp_path / "b.service.d" / "app.conf", tmp_path / "c.service.d" / "app.conf"
    for path in (gone, shared):
        path.parent.mkdir()
        path.write_text("old")
    (shared.parent / "mine.conf").write_text("somebody's own")
    answer = called(entry(wanted), purge=[f"{tmp_path}/*.service.d/app.conf"])
    assert answer["removed"] == [str(gone), str(shared)]
    assert not gone.parent.exists()
    assert [path.name for path in shared.parent.iterdir()] == ["mine.conf"]
    assert wanted.read_text() == "text\n"
    assert not called(entry(wanted), purge=[f"{tmp_path}/*.service.d/app.conf"])["changed"]


@pytest.mark.parametrize(
    "pattern", ["{0}/*.conf", "{0}//*.conf", "{0}/./*.conf", "{0}/x/../*.conf", "{0}/linked/*.conf"]
)
def test_what_was_just_written_is_never_removed(tmp_path: Path, pattern: str) -> None:
    """However the pattern spells the folder."""
    folder = tmp_path / "folder"
    (folder / "x").mkdir(parents=True)
    (folder / "linked").symlink_to(folder)
    (folder / "old.conf").write_text("old")
    answer = called(entry(folder / "new.conf"), purge=[pattern.format(folder)])
    assert len(answer["removed"]) == 1
    assert called(entry(folder / "new.conf"), purge=[pattern.format(folder)])["changed"] is False
    assert [path.name for path in folder.glob("*.conf")] == ["new.conf"]


def test_folders_and_other_files_stay(tmp_path: Path) -> None:
    (tmp_path / "folder.conf").mkdir()
    (tmp_path / "note.txt").write_text("x")
    (tmp_path / "dangling.conf").symlink_to("nowhere")
    answer = called(purge=[f"{tmp_path}/*.conf"])
    assert answer["removed"] == [str(tmp_path / "dangling.conf")]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.conf", "note.txt"]


def test_a_pattern_that_finds_nothing(tmp_path: Path) -> None:
    assert called(purge=[f"{tmp_path}/none/*.conf"])["changed"] is False


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("files", "purge", "expected"),
    [
        ([{"path": "relative/x", "content": ""}], [], "relative/x: expected an absolute path"),
        ([{"path": "/x/y", "content": ""}, {"path": "/x/./y", "content": ""}], [], "/x/y stands twice in the set"),
        ([{"path": "/x", "content": "", "mode": "u=rw"}], [], "/x: mode 'u=rw' is not octal"),
        ([{"path": "/x", "content": "", "mode": "99"}], [], "/x: mode '99' is not octal"),
        ([{"path": "/x", "content": "", "mode": "77777"}], [], "/x: mode '77777' is not octal"),
        ([{"path": "/x", "content": "", "mode": "-1"}], [], "/x: mode '-1' is not octal"),
        ([{"path": "/x"}], [], "missing required arguments: content"),
        ([{"path": "/x", "content": "", "owner": "root"}], [], "owner"),
        ([], ["*.conf"], "*.conf: expected an absolute pattern"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, files: list[dict[str, Any]], purge: list[str], expected: str
) -> None:
    first = entry(tmp_path / "first")
    answer = called(first, *files, purge=purge)
    assert expected in answer["msg"]
    assert list(tmp_path.iterdir()) == []


def test_an_error_names_the_file_and_what_was_done_before(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    answer = called(entry(tmp_path / "first"), entry(tmp_path / "folder"))
    assert answer["msg"] == f"Is a directory: {tmp_path / 'folder'}"
    assert answer["written"] == [str(tmp_path / "first")]
    (tmp_path / "file").write_text("")
    assert "Not a directory" in called(entry(tmp_path / "file" / "x"))["msg"]


def test_a_full_disk_leaves_the_old_file_and_no_half_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("before")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(os, "fsync", full)
    assert called(entry(path))["msg"] == f"No space left on device: {path}"
    assert path.read_text() == "before"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_it_runs_as_ansible_runs_it(tmp_path: Path) -> None:
    """In a process of its own."""
    path = tmp_path / "file"
    for changed in (True, False):
        done = subprocess.run(
            [sys.executable, PROGRAM],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments([entry(path)], None, {})}),
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout)["changed"] is changed
    assert path.read_text() == "text\n"


def test_its_documentation_names_every_option() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-doc"), "--type=module", "--json", "file_set", "pergola_bundle"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ANSIBLE_LIBRARY": str(PROGRAM.parent)},
    )
    pages = json.loads(done.stdout)
    assert set(pages["file_set"]["doc"]["options"]) == {"files", "purge"}
    assert set(pages["file_set"]["doc"]["options"]["files"]["suboptions"]) == {"path", "content", "mode"}
    assert set(pages["pergola_bundle"]["doc"]["options"]) == {"root", "apps", "out", "python", "machine"}
    assert all(page["examples"] and page["return"] for page in pages.values())
