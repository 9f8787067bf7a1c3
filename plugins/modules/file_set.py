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
import stat  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402


def read(path: str) -> tuple[str | None, int | None]:
    """Return a file's text and mode; nothing for a file that is not there."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
    except FileNotFoundError:
        return None, None


def write(path: str, content: str, mode: int) -> None:
    """Replace a file atomically."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    part = os.path.join(os.path.dirname(path), f".{os.path.basename(path)}.new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(part)
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(content)
        os.fchmod(stream.fileno(), mode)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, path)


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
        try:
            wanted[path] = (entry["content"], int(entry["mode"], 8))
        except ValueError:
            module.fail_json(msg=f"{path}: mode {entry['mode']!r} is not octal")
    return wanted


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
    left_over = {
        path for pattern in module.params["purge"] for path in glob.glob(pattern) if os.path.isfile(path)
    } - set(wanted)
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
        for path in sorted(left_over):
            removed.append(path)
            diff.append({"before_header": path, "after_header": path, "before": read(path)[0] or "", "after": ""})
            if not module.check_mode:
                remove(path)
    except OSError as error:
        module.fail_json(msg=f"{error.strerror}: {error.filename}", written=written, removed=removed)
    module.exit_json(changed=bool(written or removed), written=written, removed=removed, diff=diff)


if __name__ == "__main__":
    main()
