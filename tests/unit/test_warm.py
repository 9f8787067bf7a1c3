"""Modules on this machine run in forks of one interpreter, and cannot tell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible.errors import AnsibleConnectionFailure

from tests.modules import loaded

ROOT = Path(__file__).resolve().parents[2]


warm = loaded("plugins/connection/warm.py")


@pytest.fixture
def controller() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def gone(pid: int, seconds: float = 60) -> bool:
    """Whether a process has ended; one that nobody has asked about yet has."""
    deadline = time.monotonic() + seconds
    stat = Path(f"/proc/{pid}/stat")
    while stat.exists() and stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z":
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def run(folder: Path, controller: int, code: str, **environment: str) -> tuple[int, bytes, bytes]:
    with warm.connect(folder, controller) as server:
        answer: tuple[int, bytes, bytes] = warm.ask(server, code.encode(), {"PATH": "/bin", **environment}, str(folder))
        return answer


@pytest.mark.parametrize(
    ("command", "environment"),
    [
        (f"/bin/sh -c '{sys.executable}'", {}),
        (f"/bin/sh -c '{sys.executable} && sleep 0'", {}),
        (f"/bin/sh -c 'A=1 B_2=\"two words\" {sys.executable}'", {"A": "1", "B_2": "two words"}),
        (f"""/bin/sh -c 'A='"'"'it is $HOME'"'"' {sys.executable} && sleep 0'""", {"A": "it is $HOME"}),
        ("/bin/sh -c '/another/python'", None),
        (f"/bin/sh -c '{sys.executable} -c 1'", None),
        (f"/bin/sh -c 'rm -rf x && {sys.executable}'", None),
        (f"/bin/sh -c 'A=1 {sys.executable} extra && sleep 0'", None),
        (f"sudo -u somebody /bin/sh -c '{sys.executable}'", None),
        ("/bin/sh -c 'echo ~ && sleep 0'", None),
        ("/bin/sh -c 'unfinished", None),
        ("", None),
        (["a", "list"], None),
    ],
)
def test_only_what_starts_the_controllers_python_is_taken(command: object, environment: dict[str, str] | None) -> None:
    assert warm.module_environment(command) == environment


def test_code_runs_as_in_an_interpreter_of_its_own(tmp_path: Path, controller: subprocess.Popen[bytes]) -> None:
    code = (
        "import json, os, sys, atexit\n"
        "atexit.register(print, 'at the end')\n"
        "print(json.dumps([__name__, os.environ.get('A'), 'HOME' in os.environ, os.getcwd(), sys.argv, 'boto3' in sys.modules]))\n"
        "print('told', file=sys.stderr)\n"
        "left = globals().setdefault('left', 0)\n"
        "sys.exit(3)\n"
    )
    for value in ("first", "x" * 200_000):
        status, output, errors = run(tmp_path, controller.pid, code, A=value)
        lines = output.decode().splitlines()
        assert json.loads(lines[0]) == ["__main__", value, False, str(tmp_path), [""], True]
        assert (status, lines[1:], errors) == (3, ["at the end"], b"told\n")


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        ("raise RuntimeError('no luck')", 1, b"RuntimeError: no luck"),
        ("import sys; sys.exit('in words')", 1, b"in words"),
        ("import sys; sys.exit()", 0, b""),
        ("this is no Python", 1, b"SyntaxError"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL, b""),
        ("print('much' * 1_000_000)", 0, b""),
    ],
)
def test_however_it_ends_the_controller_is_told_and_the_next_runs(
    tmp_path: Path, controller: subprocess.Popen[bytes], code: str, status: int, said: bytes
) -> None:
    answer = run(tmp_path, controller.pid, code)
    assert answer[0] == status
    assert said in answer[2]
    assert len(answer[1]) == (4_000_001 if "much" in code else 0)
    assert run(tmp_path, controller.pid, "print('next')")[:2] == (0, b"next\n")


def test_many_at_once_share_one_interpreter(tmp_path: Path, controller: subprocess.Popen[bytes]) -> None:
    answers: list[tuple[int, bytes, bytes]] = []
    code = "import os, time; time.sleep(0.2); print(open(f'/proc/{os.getppid()}/stat').read().split()[3])"
    threads = [threading.Thread(target=lambda: answers.append(run(tmp_path, controller.pid, code))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {answer[0] for answer in answers} == {0}
    assert len({answer[1] for answer in answers}) == 1
    assert len(answers) == 12


def test_it_ends_with_the_run_that_started_it(tmp_path: Path, controller: subprocess.Popen[bytes]) -> None:
    code = "import os; print(open(f'/proc/{os.getppid()}/stat').read().split()[3])"
    interpreter = int(run(tmp_path, controller.pid, code)[1])
    assert Path(f"/proc/{interpreter}").exists()
    controller.kill()
    controller.wait()
    assert gone(interpreter)
    assert not (tmp_path / "warm.sock").exists()


def test_a_worker_whose_run_was_killed_starts_no_interpreter_that_stays(tmp_path: Path) -> None:
    """The run forks a worker and is killed before that one asks for anything."""
    program = f"""
import importlib.util, multiprocessing, os, pathlib, signal, sys, time
spec = importlib.util.spec_from_file_location("warm_plugin", {str(ROOT / "plugins/connection/warm.py")!r})
warm = importlib.util.module_from_spec(spec)
spec.loader.exec_module(warm)
folder = pathlib.Path({str(tmp_path)!r})


def work():
    while os.getppid() == warm.run_pid():
        time.sleep(0.05)
    try:
        warm.connect(folder, warm.run_pid()).close()
    except OSError:
        pass
    (folder / "asked").touch()


multiprocessing.get_context("fork").Process(target=work).start()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "asked").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while subprocess.run(["pgrep", "-f", str(tmp_path / "warm.sock")], check=False, capture_output=True).stdout:
        assert time.monotonic() < deadline, "an interpreter stayed"
        time.sleep(0.05)


def test_a_module_whose_run_was_killed_ends_too(tmp_path: Path, controller: subprocess.Popen[bytes]) -> None:
    server = warm.connect(tmp_path, controller.pid)
    mark = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(mark)!r}).write_text(str(os.getpid())); time.sleep(600)"

    def ask() -> None:
        with pytest.raises(AnsibleConnectionFailure):
            warm.ask(server, code.encode(), {}, str(tmp_path))

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 60
    while not (mark.exists() and mark.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server.shutdown(2)
    assert gone(int(mark.read_text()))
    thread.join(60)
    assert not thread.is_alive()
    server.close()


def test_one_that_cannot_start_says_why(
    tmp_path: Path, controller: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit('no such thing')", encoding="utf-8")
    monkeypatch.setattr(warm, "SERVER", broken)
    with pytest.raises(OSError, match="no such thing"):
        warm.connect(tmp_path, controller.pid)


PLAY = """
- hosts: here
  gather_facts: false
  environment: {GIVEN: "it's {{ inventory_hostname }}"}
  tasks:
    - ansible.builtin.command: printenv GIVEN
      register: first
    - ansible.builtin.command: "false"
      register: second
      failed_when: second.rc != 1
    - ours: {word: "{{ first.stdout }}"}
      register: third
      failed_when: third.answer != "it's here, told by own"
    - ansible.builtin.copy: {content: "{{ first.stdout }}", dest: "{{ folder }}/out", mode: "0600"}
"""


OURS = """#!/usr/bin/python
DOCUMENTATION = "module: ours"
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.own import who


def main():
    module = AnsibleModule(argument_spec={"word": {"type": "str", "required": True}})
    module.exit_json(changed=False, answer=f"{module.params['word']}, told by {who()}")


if __name__ == "__main__":
    main()
"""


def test_a_play_does_the_same_over_it(tmp_path: Path) -> None:
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    for folder, name, text in (("library", "ours", OURS), ("module_utils", "own", "def who():\n    return 'own'\n")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.py").write_text(text, encoding="utf-8")
    inventory = f"here ansible_connection=warm ansible_python_interpreter={sys.executable}\n"
    (tmp_path / "hosts").write_text(inventory, encoding="utf-8")
    command = [Path(sys.executable).with_name("ansible-playbook"), tmp_path / "play.yml", "-i", tmp_path / "hosts"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_STDOUT_CALLBACK": "default"}
    environment |= {f"ANSIBLE_{what}": str(tmp_path / what.lower()) for what in ("LIBRARY", "MODULE_UTILS")}
    done = subprocess.run(
        [*command, "-e", f"folder={tmp_path}", "-vvv"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (tmp_path / "out").read_text(encoding="utf-8") == "it's here"
    # what reached a shell was preparation of a folder for the file, no module
    assert not [line for line in done.stdout.splitlines() if " EXEC " in line and sys.executable in line]
