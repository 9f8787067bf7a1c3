"""docs/ADD-AN-APP.md, followed to the letter: its files, its commands, its answers."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from app.core import manifest, plan

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "ADD-AN-APP.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"^`(?P<path>app/[^`]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
SCREEN = "## A screen"


def blocks(language: str, text: str = PAGE) -> list[str]:
    return [found["text"] for found in BLOCK.finditer(text) if found["language"] == language]


def command(program: str) -> list[str]:
    """The one command of the page that runs `program`, with this project's Python in the place of .venv's."""
    found = [line for block in blocks("sh") for line in block.splitlines() if program in shlex.split(line)[:3]]
    assert len(found) == 1, f"the page runs {program} {len(found)} times"
    words = shlex.split(found[0])
    return (
        [sys.executable, *words[1:]]
        if words[0] == ".venv/bin/python"
        else [sys.executable, "-m", Path(words[0]).name, *words[1:]]
    )


@dataclass(frozen=True)
class Project:
    """A project folder with `app/core` and what the page says to write."""

    root: Path

    @contextmanager
    def serving(self, words: list[str], **env: str) -> Iterator[str]:
        """Run a server command of the page on a free port; give its address once it answers."""
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        log = self.root / f"server-{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*words, "--port", str(port)],
                cwd=self.root,
                env={"PATH": "/usr/bin:/bin", "HOME": str(self.root), "PYTHONPATH": str(self.root), **env},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            deadline = time.monotonic() + 60
            while not self._answers(port):
                ended = process.poll()
                assert ended is None, f"{words} ended with {ended}:\n{log.read_text()}"
                assert time.monotonic() < deadline, f"{words} does not answer:\n{log.read_text()}"
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)

    @staticmethod
    def _answers(port: int) -> bool:
        with closing(socket.socket()) as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project that has nothing but `app/core`."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    shutil.copytree(ROOT / "app" / "core", tmp_path / "app" / "core", ignore=shutil.ignore_patterns("__pycache__"))
    return Project(tmp_path)


def write(project: Project, text: str) -> list[str]:
    """Write the files that the text shows; return their paths."""
    paths = []
    for found in FILE.finditer(text):
        path = project.root / found["path"]
        path.parent.mkdir(exist_ok=True)
        path.write_text(found["text"], encoding="utf-8")
        paths.append(found["path"])
    return paths


def test_two_files_make_an_app(project: Project) -> None:
    assert write(project, PAGE.split(SCREEN)[0]) == ["app/survey/app.yml", "app/survey/api.py"]


def test_the_manifest_gives_what_the_page_says(project: Project) -> None:
    write(project, PAGE.split(SCREEN)[0])
    found = plan.build(manifest.load_all(project.root, ["survey"]))
    assert [entry["path"] for entry in found["locations"]] == ["/survey/api/"]
    assert found["apps"][0]["user"] == "pergola-survey"
    assert found["apps"][0]["path"] == "/survey/"


def test_its_api_answers_as_shown(project: Project) -> None:
    write(project, PAGE.split(SCREEN)[0])
    curl = next(shlex.split(line) for block in blocks("sh") for line in block.splitlines() if line.startswith("curl "))
    path = httpx.URL(curl[1]).path
    body = json.loads(curl[curl.index("--json") + 1])
    with project.serving(command(".venv/bin/uvicorn")) as url, httpx.Client(base_url=url, timeout=30) as client:
        assert client.post(path, json=body).raise_for_status().json() == json.loads(blocks("json")[0])
        assert client.get("/health/ready").raise_for_status().json()["checks"] == {"answers": 385}
        assert client.get("/docs").raise_for_status().headers["content-type"].startswith("text/html")
        wrong = client.post(path, json={"margin": 2})
        assert wrong.status_code == 422
        assert "margin" in wrong.text


def test_the_inventory_line_is_one_that_works(project: Project) -> None:
    write(project, PAGE.split(SCREEN)[0])
    [line] = [yaml.safe_load(block) for block in blocks("yaml") if block.startswith("pergola_apps:")]
    own = yaml.safe_load((ROOT / "inventories" / "local" / "group_vars" / "all.yml").read_text(encoding="utf-8"))
    assert line["pergola_apps"] == [*own["pergola_apps"], "survey"]
    for name in own["pergola_apps"]:
        (project.root / "app" / name).symlink_to(ROOT / "app" / name)
    assert {app.name for app in manifest.load_all(project.root, line["pergola_apps"])} == set(line["pergola_apps"])


def test_the_screen_is_one_more_file(project: Project) -> None:
    write(project, PAGE)
    [screen] = [block for block in blocks("yaml", PAGE.split(SCREEN)[1]) if block.startswith("ui:")]
    with (project.root / "app" / "survey" / "app.yml").open("a", encoding="utf-8") as file:
        file.write(screen)
    with (
        project.serving(command(".venv/bin/uvicorn")) as api,
        project.serving(command("app.core.ui"), PERGOLA_API_URL=api) as url,
    ):
        ready = httpx.get(f"{url}/survey/health/ready", timeout=60)
        assert ready.status_code == 200, ready.text
        assert httpx.get(f"{url}/survey/", timeout=30).status_code == 200
        # the script really asked the API: the example of `ready` is not counted
        assert 'route="/sample-size"' in httpx.get(f"{api}/metrics", timeout=30).text
