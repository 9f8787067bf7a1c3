"""Static tools over a submission's texts: ruff, bandit, radon, eslint, and which dependencies are pinned.

The texts are written into a folder of ours under names of ours (`f00012.py`), so that no path and no configuration of a submission has any
effect; what a tool reports is translated back. Tools run confined, each with its own time. Nothing of a submission is executed.
"""

import json
import logging
import re
import sys
import threading
import tomllib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from packaging.requirements import InvalidRequirement, Requirement
from ruff import find_ruff_bin

from app.judge.confine import Limits, TooLong, Watch, confined
from app.judge.languages import is_test
from app.judge.repository import File, Repository

log = logging.getLogger(__name__)

Severity = Literal["info", "low", "medium", "high", "critical"]
MOST_FOUND: Final = 400
COMPLEX: Final = 10
"""Cyclomatic complexity above which a function counts as a finding (radon's rank C and worse)."""

_RUFF_RULES: Final = "F,E7,E9,B,S110,S112,BLE001,E722,UP031,PERF,ASYNC,C901,PLR0912"
_ESLINT_RULES: Final = {"no-unused-vars": 1, "no-empty": 1, "no-eval": 2, "no-implied-eval": 2, "no-dupe-keys": 2}
_SEVERITIES: Final = {"LOW": "low", "MEDIUM": "medium", "HIGH": "high"}
_LIMITS: Final = Limits(memory=1024**3, file=64 * 1024**2, cpu=60, files=256)


@dataclass(frozen=True)
class Finding:
    """Something a tool reports about a line of a file."""

    tool: str
    rule: str
    message: str
    file: str
    line: int
    severity: Severity


@dataclass(frozen=True)
class Function:
    """A function with its cyclomatic complexity."""

    name: str
    file: str
    line: int
    complexity: int


@dataclass(frozen=True)
class Dependency:
    """A dependency that a manifest file names. `pinned` when its version is fixed, `bounded` when it has any limit."""

    name: str
    file: str
    line: int
    pinned: bool
    bounded: bool


@dataclass
class Report:
    """What all tools found. `failed` has the tools that are missing or broke, with the reason."""

    findings: list[Finding] = field(default_factory=list)
    functions: list[Function] = field(default_factory=list)
    dependencies: list[Dependency] = field(default_factory=list)
    locked: bool = False
    ran: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def of(self, tool: str) -> list[Finding]:
        """The findings of one tool."""
        return [one for one in self.findings if one.tool == tool]


def analyse(repository: Repository, folder: Path, *, seconds: float, watch: Watch | None = None) -> Report:
    """Run every tool, two at a time. Raises confine.Stopped."""
    report, lock = Report(), threading.Lock()
    python = _write([f for f in repository.texts if f.path.endswith(".py")], folder / "py", "py")
    script = _write([f for f in repository.texts if re.search(r"\.(js|jsx|mjs|ts|tsx)$", f.path)], folder / "js", None)

    def one(name: str, run: Callable[[], list[Any]]) -> None:
        try:
            found = run()
        except TooLong:
            problem = f"took longer than {seconds:g} seconds"
        except FileNotFoundError:
            problem = "not installed"
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s gave an answer that is none", name, exc_info=error)
            problem = "gave no readable answer"
        else:
            with lock:
                report.ran.append(name)
                for row in found[:MOST_FOUND]:
                    (report.functions if isinstance(row, Function) else report.findings).append(row)
            return
        with lock:
            report.failed[name] = problem

    tasks: list[tuple[str, Callable[[], list[Any]]]] = []
    if python:
        tasks += [
            ("bandit", lambda: _bandit(folder / "py", python, seconds, watch)),
            ("radon", lambda: _radon(folder / "py", python, seconds, watch)),
            ("ruff", lambda: _ruff(folder / "py", python, seconds, watch)),
        ]
    if script:
        tasks.append(("eslint", lambda: _eslint(folder / "js", script, seconds, watch)))
    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(one, name, run) for name, run in tasks]:
            future.result()
    report.dependencies, report.locked = dependencies(repository)
    report.ran.append("pip-audit (detect-only)")
    report.findings.sort(key=lambda f: (f.file, f.line, f.tool, f.rule))
    report.functions.sort(key=lambda f: (-f.complexity, f.file, f.line))
    report.ran.sort()
    return report


def _write(files: Sequence[File], folder: Path, suffix: str | None) -> dict[str, File]:
    """Write texts under names of ours; the file of each name."""
    folder.mkdir()
    written: dict[str, File] = {}
    for number, file in enumerate(files):
        name = f"f{number:05d}.{suffix or file.path.rsplit('.', 1)[-1]}"
        (folder / name).write_text(file.text or "", encoding="utf-8", errors="replace", newline="")
        written[name] = file
    return written


def _module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-I", "-m", name, *arguments]


def _run(command: list[str], folder: Path, seconds: float, watch: Watch | None) -> str:
    kept = {"XDG_CACHE_HOME": str(folder.with_name("cache"))}  # what a tool remembers is no source
    done = confined(command, cwd=folder, seconds=seconds, limits=_LIMITS, env=kept, watch=watch)
    if "No module named" in done.said and not done.out:
        raise FileNotFoundError(command[0])
    return done.out.decode("utf-8", "replace")


def _ruff(folder: Path, names: dict[str, File], seconds: float, watch: Watch | None) -> list[Finding]:
    command = [find_ruff_bin(), "check", "--isolated", "--no-cache", "--quiet", "--exit-zero", "--select", _RUFF_RULES,
               "--ignore-noqa", "--output-format", "json", "--target-version", "py312", "."]  # fmt: skip
    rows = json.loads(_run(command, folder, seconds, watch) or "[]")
    return [
        Finding(
            "ruff",
            str(row["code"] or "syntax"),
            str(row["message"])[:200],
            file.path,
            line,
            _ruff_severity(row["code"]),
        )
        for row in rows
        if (file := names.get(Path(row["filename"]).name)) and (line := _line(file, row["location"]["row"]))
    ]


def _ruff_severity(code: str | None) -> Severity:
    if code is None or code in {"invalid-syntax", "F821", "F823"} or code.startswith("E9"):
        return "high"
    return "medium" if code.startswith(("B", "S", "E722", "BLE", "C901")) else "low"


def _bandit(folder: Path, names: dict[str, File], seconds: float, watch: Watch | None) -> list[Finding]:
    command = _module("bandit", "--recursive", "--quiet", "--format", "json", "--exit-zero", "--ignore-nosec", ".")
    text = _run(command, folder, seconds, watch)
    found: list[Finding] = []
    for row in json.loads(text)["results"]:
        file = names.get(Path(row["filename"]).name)
        if file is None or (row["test_id"] in {"B101", "B105", "B106"} and is_test(file.path)):
            continue  # asserting is what tests are for, and their passwords are made up
        if line := _line(file, row["line_number"]):
            severity: Any = _SEVERITIES.get(row["issue_severity"], "low")
            found.append(Finding("bandit", row["test_id"], str(row["issue_text"])[:200], file.path, line, severity))
    return found


def _radon(folder: Path, names: dict[str, File], seconds: float, watch: Watch | None) -> list[Any]:
    told = json.loads(_run(_module("radon", "cc", "--json", "."), folder, seconds, watch) or "{}")
    found: list[Any] = []
    for name, blocks in told.items():
        file = names.get(Path(name).name)
        if file is None or not isinstance(blocks, list):  # a file that radon cannot read is ruff's finding
            continue
        for block in blocks:
            line = _line(file, block["lineno"])
            if block["type"] == "class" or not line:
                continue
            value = int(block["complexity"])
            found.append(Function(str(block["name"]), file.path, line, value))
            if value > COMPLEX:
                message = f"{block['name']} has a cyclomatic complexity of {value}"
                found.append(Finding("radon", "CC", message, file.path, line, "medium"))
    return found


def _eslint(folder: Path, names: dict[str, File], seconds: float, watch: Watch | None) -> list[Finding]:
    options = ("--no-config-lookup", "--no-inline-config", "--format", "json", "--rule", json.dumps(_ESLINT_RULES))
    command = ["eslint", *options, "."]
    found: list[Finding] = []
    for row in json.loads(_run(command, folder, seconds, watch)):
        file = names.get(Path(row["filePath"]).name)
        for message in row["messages"] if file else []:
            if file and (line := _line(file, message.get("line") or 1)):
                severity: Severity = "medium" if message.get("severity") == 2 else "low"
                rule = str(message.get("ruleId") or "syntax")
                found.append(Finding("eslint", rule, str(message["message"])[:200], file.path, line, severity))
    return found


def _line(file: File, line: Any) -> int:
    """The line when the file has it, else the nearest one that exists; 0 when the file has none."""
    return min(max(1, int(line)), file.lines)


_REQUIREMENTS: Final = re.compile(r"(^|/)(requirements[^/]*|constraints[^/]*)\.(txt|in)$")
_LOCKS: Final = re.compile(
    r"(^|/)(uv\.lock|poetry\.lock|Pipfile\.lock|pdm\.lock|package-lock\.json|yarn\.lock|pnpm-lock\.yaml|bun\.lockb?|Cargo\.lock|go\.sum|Gemfile\.lock|composer\.lock)$"
)


def dependencies(repository: Repository) -> tuple[list[Dependency], bool]:
    """What requirement files, pyproject.toml and package.json name, and whether there is a lock file. Nothing is asked of any index."""
    found: list[Dependency] = []
    for file in repository.texts:
        if file.path.count("/") > 3:
            continue
        if _REQUIREMENTS.search(file.path):
            found += _from_requirements(file)
        elif file.name == "pyproject.toml":
            found += _from_pyproject(file)
        elif file.name == "package.json":
            found += _from_package(file)
    return found[:1000], any(_LOCKS.search(file.path) for file in repository.files)


def _from_requirements(file: File) -> list[Dependency]:
    found = []
    for number, row in enumerate((file.text or "").splitlines(), 1):
        text = row.split("#", 1)[0].strip().rstrip("\\").split(" --hash", 1)[0].strip()
        if text and not text.startswith("-") and (one := _python(text, file, number)):
            found.append(one)
    return found


def _python(text: str, file: File, line: int) -> Dependency | None:
    try:
        asked = Requirement(text)
    except InvalidRequirement:
        return None
    pinned = any(part.operator in {"==", "==="} and "*" not in part.version for part in asked.specifier)
    return Dependency(
        asked.name.lower(), file.path, line, pinned, pinned or bool(str(asked.specifier)) or asked.url is not None
    )


def _from_pyproject(file: File) -> list[Dependency]:
    try:
        told = tomllib.loads(file.text or "")
    except (tomllib.TOMLDecodeError, RecursionError):
        return []
    project = told.get("project")
    listed = project.get("dependencies") if isinstance(project, dict) else None
    rows = [text for text in listed if isinstance(text, str)] if isinstance(listed, list) else []
    return [one for text in rows if (one := _python(text, file, _where(file, text)))]


def _from_package(file: File) -> list[Dependency]:
    try:
        told = json.loads(file.text or "")
    except (ValueError, RecursionError):
        return []
    found = []
    for group in ("dependencies", "devDependencies"):
        rows = told.get(group) if isinstance(told, dict) else None
        for name, version in rows.items() if isinstance(rows, dict) else ():
            text = str(version)
            pinned = bool(re.fullmatch(r"=?\d+\.\d+\.\d+\S*", text))
            bounded = text not in {"", "*", "latest", "x"}
            found.append(Dependency(str(name).lower()[:100], file.path, _where(file, f'"{name}"'), pinned, bounded))
    return found


def _where(file: File, text: str) -> int:
    at = (file.text or "").find(text)
    return _line(file, 1 if at < 0 else (file.text or "").count("\n", 0, at) + 1)
