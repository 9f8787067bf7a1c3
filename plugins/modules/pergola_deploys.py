#!/usr/bin/python
"""Documentation of the action pergola_deploys, which does the work on the control node."""

DOCUMENTATION = r"""
---
module: pergola_deploys
short_description: Move a release from one colour of a fleet to the other
description:
  - Runs C(python -m deploys) in a process of its own and shows its progress.
  - When this task is interrupted the deploy is taken back; when the control node dies the next command settles it.
  - In check mode nothing moves; the status is returned.
options:
  command:
    description: What to do.
    type: str
    choices: [deploy, rollback, status, unfinished, history, settle, record, find, prune, bake]
    required: true
  deploy:
    description: The section C(deploy) of the cloud plan.
    type: dict
    required: true
  releases:
    description: By fleet, C(key) and C(sha256) of the release's index in the artefact bucket.
    type: dict
    default: {}
  options:
    description:
      - "C(deploy): C(ignore_alarms), because this release is the cure of what is firing."
      - "C(record): C(fleets), by name what M(pergola_site) returned; C(allow_dirty)."
      - "C(deploy): C(newest_image), also when only the image is another."
      - "C(find): C(release), an id or version, or how it begins, or C(live). C(prune): C(keep)."
      - "C(bake): C(fleet), the plan's section of that name; C(base), C(debian) or C(baked); C(keep); C(force)."
    type: dict
    default: {}
author: [Pergola contributors]
"""

EXAMPLES = r"""
- name: The release is live in the other colour
  pergola_deploys:
    command: deploy
    deploy: "{{ cloud.deploy }}"
    releases: {main: {key: releases/site-0a1b2c3d4e5f.json, sha256: "..."}}
"""

RETURN = r"""
changed:
  description: Whether anything moved.
  returned: always
  type: bool
colours:
  description: A row for each colour of each fleet, for C(status).
  returned: status
  type: list
  elements: dict
unfinished:
  description: What is under way or was left half-done, as a sentence; empty when nothing is. For C(unfinished).
  returned: unfinished
  type: str
abandoned:
  description: Whether the controller of what is unfinished is dead. For C(unfinished).
  returned: unfinished
  type: bool
images:
  description: By fleet, the image that was baked, for C(bake).
  returned: bake
  type: dict
history:
  description: The last deploys, the newest first, for C(history).
  returned: history
  type: list
  elements: dict
"""
