#!/usr/bin/python
"""Ansible module that writes a set of files in one task."""

DOCUMENTATION = r"""
---
module: file_set
short_description: Write a set of files in one task
description:
  - Writes many small files, each atomically, and removes what a pattern finds that is not in the set.
  - A loop over M(ansible.builtin.template) costs about a second a file; this costs one task whatever their number.
options:
  files:
    description: The files.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path. Missing folders are made with mode 0755.
        type: path
        required: true
      content:
        description: The whole text.
        type: str
        required: true
      mode:
        description: Mode in octal.
        type: str
        default: "0644"
  purge:
    description: Glob patterns; a file that one of them finds and that is not in the set is removed, and its folder when that is empty then.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
author: [Pergola contributors]
"""

EXAMPLES = r"""
- name: The units are written
  file_set:
    files:
      - {path: /etc/systemd/system/one.service, content: "{{ lookup('ansible.builtin.template', 'one.j2') }}"}
    purge: [/etc/systemd/system/mine-*.service]
"""

RETURN = r"""
written:
  description: Paths that were (or in check mode would be) written.
  returned: always
  type: list
removed:
  description: Paths that were (or in check mode would be) removed.
  returned: always
  type: list
"""

import contextlib  # noqa: E402 - Ansible wants the documentation first
import glob  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import stat  # noqa: E402
from collections.abc import Iterable  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402


def read(path: str) -> tuple[str | None, int | None]:
    """Return a file's text and mode; nothing for a file that is not there."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return stream.read(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except FileNotFoundError:
        return None, None


def make_folder(path: str) -> None:
    """Make a folder and those above it, readable for everybody whatever the umask is."""
    if not os.path.isdir(path):
        make_folder(os.path.dirname(path))
        os.mkdir(path)
        os.chmod(path, 0o755)  # noqa: S103 - as documented; files that must be secret have their own mode


def write(path: str, content: str, mode: int) -> None:
    """Replace a file atomically; when that fails, the old one is there and no half of the new one."""
    make_folder(os.path.dirname(path))
    part = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.write(content)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except OSError:
        os.unlink(part)
        raise


def remove(path: str) -> None:
    """Remove a file, and its folder when that is empty."""
    os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(os.path.dirname(path))


def wanted_files(module: AnsibleModule) -> dict[str, tuple[str, int]]:
    """Return content and mode by path; wrong entries end the module."""
    wanted: dict[str, tuple[str, int]] = {}
    for entry in module.params["files"]:
        path = os.path.normpath(entry["path"])
        if not os.path.isabs(path):
            module.fail_json(msg=f"{entry['path']}: expected an absolute path")
        if path in wanted:
            module.fail_json(msg=f"{path} stands twice in the set")
        if not re.fullmatch("[0-7]{3,4}", entry["mode"]):
            module.fail_json(msg=f"{path}: mode {entry['mode']!r} is not octal")
        wanted[path] = (entry["content"], int(entry["mode"], 8))
    return wanted


def left_over_files(module: AnsibleModule, wanted: Iterable[str]) -> list[str]:
    """Return what the patterns find beside the wanted files, however they spell the folder."""
    found: set[str] = set()
    for pattern in module.params["purge"]:
        if not os.path.isabs(pattern):
            module.fail_json(msg=f"{pattern}: expected an absolute pattern")
        found.update(path for path in glob.glob(pattern) if os.path.islink(path) or os.path.isfile(path))
    kept = {place(path) for path in wanted}
    return sorted(path for path in found if place(path) not in kept)


def place(path: str) -> tuple[str, str]:
    """Return where a file really is; a link is where it stands, not where it leads."""
    return os.path.realpath(os.path.dirname(path)), os.path.basename(path)


def main() -> None:
    """Write what differs, remove what is left over, report both."""
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "mode": {"type": "str", "default": "0644"},
                },
            },
            "purge": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wanted = wanted_files(module)
    left_over = left_over_files(module, wanted)
    written, removed, diff = [], [], []
    try:
        for path, (content, mode) in wanted.items():
            old, old_mode = read(path)
            if (old, old_mode) == (content, mode):
                continue
            written.append(path)
            diff.append({"before_header": path, "after_header": path, "before": old or "", "after": content})
            if not module.check_mode:
                write(path, content, mode)
        for path in left_over:
            removed.append(path)
            diff.append({"before_header": path, "after_header": path, "before": read(path)[0] or "", "after": ""})
            if not module.check_mode:
                remove(path)
    except OSError as error:
        module.fail_json(msg=f"{error.strerror}: {error.filename}", written=written, removed=removed)
    module.exit_json(changed=bool(written or removed), written=written, removed=removed, diff=diff)


if __name__ == "__main__":
    main()
