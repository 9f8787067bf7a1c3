"""The screen of a run: real ansible-playbook runs on a tiny playbook."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOK = Path(sys.executable).with_name("ansible-playbook")
CONFIG = f"""\
[defaults]
callback_plugins = {ROOT}/plugins/callback
filter_plugins = {ROOT}/plugins/filter
stdout_callback = pergola
localhost_warning = False
nocows = True
nocolor = True
interpreter_python = {sys.executable}
"""


class Project:
    """A folder with an ansible.cfg and some playbooks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[subprocess.Popen[str]] = []
        (folder / "ansible.cfg").write_text(CONFIG)
        (folder / "inventories" / "local").mkdir(parents=True)
        (folder / "inventories" / "local" / "hosts.yml").write_text(
            "all: {hosts: {here: {ansible_connection: local}}}\n"
        )
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PERGOLA_"))
        }
        self.environment["ANSIBLE_LOCAL_TEMP"] = str(folder / "tmp")

    def write(self, name: str, tasks: str) -> None:
        head = "- name: Try it out\n  hosts: all\n  gather_facts: false\n  tasks:\n"
        (self.folder / name).write_text(head + textwrap.indent(textwrap.dedent(tasks), "    "))

    def start(
        self, *arguments: str, cwd: Path | None = None, inventory: str = "inventories/local"
    ) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [PLAYBOOK, f"--inventory={inventory}", *arguments],
            cwd=cwd or self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(
        self, *arguments: str, cwd: Path | None = None, inventory: str = "inventories/local"
    ) -> tuple[int, str, str]:
        process = self.start(*arguments, cwd=cwd, inventory=inventory)
        output, errors = process.communicate(timeout=60)
        return process.returncode, output, errors


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path)
    yield made
    for process in made.started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    (tmp_path / "go-on").touch()  # Ansible's workers outlive a killed run until their task ends


STORY = """
- name: Nothing to do here
  ansible.builtin.debug: {msg: ["one line", "another line"]}
- name: Something changed
  ansible.builtin.command: sleep 1.1
- name: Some items
  ansible.builtin.debug: {msg: "item {{ item }}"}
  changed_when: item == 2
  loop: [1, 2]
  loop_control: {label: "number {{ item }}"}
- name: Nobody minds this
  ansible.builtin.fail: {msg: "not so bad"}
  ignore_errors: true  # how an ignored failure is shown is what is tested
- name: A tool says what is wrong
  ansible.builtin.command: sh -c 'echo first out; echo first complaint >&2; echo second complaint >&2; exit 3'
  ignore_errors: true  # the play goes on to the next thing to show
- name: A wrong manifest
  ansible.builtin.debug: {msg: "{{ ['nosuchapp'] | pergola_plan }}"}
  ignore_errors: true  # the play goes on to the next thing to show
- name: The end
  ansible.builtin.fail:
    msg: |
      The first line says what is wrong, with a "quote" and a {brace}.
      The second line says where.

      The last line says what to do next.
"""


def test_what_a_run_shows(project: Project) -> None:
    project.write("story.yml", STORY)
    code, output, errors = project.run("story.yml")
    assert code == 2, output + errors
    lines = output.splitlines()

    def after(start: str) -> list[str]:
        """The detail lines below the line of a task."""
        number = next(index for index, line in enumerate(lines) if start in line)
        details = []
        for line in lines[number + 1 :]:
            if not line.startswith("           | "):
                break
            details.append(line.removeprefix("           | "))
        return details

    assert "Try it out" in lines
    assert any(re.fullmatch(r" +\d+\.\d s  ok       Nothing to do here \[here\]", line) for line in lines)
    assert after("Nothing to do here") == ["one line", "another line"]
    assert any(re.fullmatch(r" +\d+\.\d s  changed  Something changed \[here\]", line) for line in lines)
    items = [line for line in lines if "Some items" in line]
    assert len(items) == 1, "an item that changed nothing needs no line"
    assert items[0].endswith("changed  Some items [here] (number 2)")
    assert any("ignored  Nobody minds this [here]" in line for line in lines)
    assert after("Nobody minds this") == ["not so bad"]
    tool = after("A tool says what is wrong")
    assert {"first complaint", "second complaint"} <= set(tool)
    assert any("apps/nosuchapp: there is no such app" in line for line in after("A wrong manifest"))
    assert any("FAILED   The end [here]" in line for line in lines)
    assert after("The end") == [
        'The first line says what is wrong, with a "quote" and a {brace}.',
        "The second line says where.",
        "",
        "The last line says what to do next.",
    ]
    assert re.search(r"^here +ok=6 changed=3 failed=1 unreachable=0 skipped=0$", output, re.MULTILINE), output
    slowest = [line for line in lines[-4:] if line.endswith("s  Something changed")]
    assert len(slowest) == 1
    assert float(slowest[0].split()[0]) >= 1.1
    assert re.fullmatch(r" +\d+\.\d s  in all, 7 tasks", lines[-1])
    assert "DEPRECATION" not in output + errors
    assert "Traceback" not in output + errors


def test_a_quiet_run_shows_only_what_changed_and_no_secret(project: Project) -> None:
    project.write(
        "quiet.yml",
        """
        - name: Same as before
          ansible.builtin.debug: {msg: x}
        - name: Something new
          ansible.builtin.debug: {msg: y}
          changed_when: true
        - name: A secret
          ansible.builtin.fail: {msg: "the password is hunter2"}
          no_log: true
        """,
    )
    project.environment["PERGOLA_SHOW_OK"] = "false"
    code, output, errors = project.run("quiet.yml", "--diff", "-vv")
    assert code == 2
    assert "  ok       " not in output
    assert "changed  Something new [here]" in output
    assert "FAILED   A secret [here]" in output
    assert "hunter2" not in output + errors


# ---------------------------------------------------------------- one run at a time

WAITS = """
- name: Wait
  ansible.builtin.wait_for: {path: "{{ playbook_dir }}/go-on", timeout: 60}
"""
SHORT = """
- name: Pass by
  ansible.builtin.debug: {msg: x}
"""


@pytest.fixture
def busy(project: Project) -> subprocess.Popen[str]:
    """A run that goes on until it is killed."""
    project.write("waits.yml", WAITS)
    project.write("short.yml", SHORT)
    process = project.start("waits.yml")
    deadline = time.monotonic() + 30
    while not any("pid" in path.read_text() for path in (project.folder / "build" / "run").glob("*.lock")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "the run took no lock"
        time.sleep(0.05)
    return process


def test_a_second_run_at_once_is_refused_until_the_first_is_over(project: Project, busy: subprocess.Popen[str]) -> None:
    first = busy
    for inventory in ("inventories/local", "inventories/local/hosts.yml"):
        code, output, errors = project.run("short.yml", inventory=inventory)
        assert code == 75, output + errors
        assert re.search(
            rf"another run on the inventory local is going on \(pid {first.pid}, since \d\d:\d\d:\d\d\); "
            r"wait\s+for\s+it\s+to\s+end,\s+then\s+run\s+this\s+again",
            " ".join((output + errors).split()),
        ), output + errors
        assert "Pass by" not in output
    other = project.folder / "inventories" / "other"
    other.mkdir()
    (other / "hosts.yml").write_text("all: {hosts: {there: {ansible_connection: local}}}\n")
    code, output, errors = project.run("short.yml", inventory="inventories/other")
    assert code == 0, "another inventory does not wait"
    assert "Pass by [there]" in output
    assert first.poll() is None, "the first goes on"
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    code, output, errors = project.run("short.yml")
    assert code == 0, output + errors
    assert "Pass by" in output


def test_two_playbooks_of_one_run_do_not_wait_for_each_other(project: Project) -> None:
    project.write("short.yml", SHORT)
    (project.folder / "site.yml").write_text("- name: Both\n  import_playbook: short.yml\n")
    code, output, errors = project.run("short.yml", "site.yml")
    assert code == 0, output + errors
    assert output.count("Pass by [here]") == 2


def test_a_playbook_in_a_subfolder_takes_the_projects_lock(project: Project) -> None:
    (project.folder / "playbooks").mkdir()
    project.write("playbooks/short.yml", SHORT)
    assert project.run("playbooks/short.yml")[0] == 0
    assert [path.name for path in (project.folder / "build" / "run").iterdir()] == ["local.lock"]
    assert not (project.folder / "playbooks" / "build").exists()


def test_a_playbook_outside_any_project_keeps_its_lock_beside_it(
    project: Project, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """And not in the root of the file system."""
    there_before = Path("/build").exists()
    folder = tmp_path_factory.mktemp("alone")
    project.write("short.yml", SHORT)
    (project.folder / "short.yml").rename(folder / "short.yml")
    project.environment["ANSIBLE_CONFIG"] = str(project.folder / "ansible.cfg")
    code, output, errors = project.run("short.yml", cwd=folder, inventory=str(project.folder / "inventories/local"))
    assert code == 0, output + errors
    assert (folder / "build" / "run" / "local.lock").is_file()
    assert Path("/build").exists() == there_before
