#!/usr/bin/python
"""Ansible module that builds release bundles on the control node."""

DOCUMENTATION = r"""
---
module: pergola_bundle
short_description: Build release bundles of apps
description:
  - Builds, for each app, an archive of its code and the layers of its locked packages, named by hashes of what is inside.
  - Runs on the control node. What is built already is used again.
options:
  root:
    description: The project's folder.
    type: path
    required: true
  apps:
    description: Names of apps, or mappings with C(path) for an app that lives elsewhere.
    type: list
    elements: raw
    required: true
  out:
    description: Folder for the archives.
    type: path
    required: true
  python:
    description: Python of the host as major.minor.
    type: str
    required: true
  machine:
    description: Architecture of the host.
    type: str
    choices: [x86_64, amd64, aarch64, arm64]
    default: x86_64
attributes:
  check_mode:
    support: full
author: [Pergola contributors]
"""

EXAMPLES = r"""
- name: The releases are built
  pergola_bundle:
    root: "{{ playbook_dir }}/.."
    apps: [portal, wine]
    out: build/bundles
    python: "3.13"
  delegate_to: localhost
  register: built
"""

RETURN = r"""
bundles:
  description: One mapping an app with app, release, archive, archive_sha256, layers (id, archive, archive_sha256 each) and changed.
  returned: success
  type: list
  elements: dict
"""

import sys  # noqa: E402 - Ansible wants the documentation first
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402


def main() -> None:
    """Build the bundles and report them."""
    module = AnsibleModule(
        argument_spec={
            "root": {"type": "path", "required": True},
            "apps": {"type": "list", "elements": "raw", "required": True},
            "out": {"type": "path", "required": True},
            "python": {"type": "str", "required": True},
            "machine": {"type": "str", "default": "x86_64", "choices": ["x86_64", "amd64", "aarch64", "arm64"]},
        },
        supports_check_mode=True,
    )
    root, out = Path(module.params["root"]).resolve(), Path(module.params["out"]).resolve()
    sys.path.insert(0, str(root))
    try:
        from app.core import bundle, manifest, tools  # noqa: PLC0415 - the project's folder is known only now
    except ImportError as error:
        module.fail_json(
            msg=f"cannot import the project at {root}: {error}; run `make venv` and use its Python (ansible_python_interpreter)"
        )
    try:
        manifests = manifest.load_all(root, module.params["apps"])
        built = [
            bundle.build(
                root,
                one,
                out=out,
                python=module.params["python"],
                machine=module.params["machine"],
                check=module.check_mode,
            )
            for one in manifests
        ]
    except (manifest.ManifestError, tools.BundleError, OSError) as error:
        module.fail_json(msg=f"the bundles cannot be built:\n{error}")
    module.exit_json(changed=any(one.changed for one in built), bundles=[asdict(one) for one in built])


if __name__ == "__main__":
    main()
