"""Scores, evidence, tools: against repositories whose faults are known."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from app.judge import llm, scorecard, tools
from app.judge.agents.subject import SUB_SCORES, Found, Subject, Verdict, real
from app.judge.clone import Clone
from app.judge.confine import TooLong
from app.judge.languages import is_ci, is_test, language_of, part_of
from app.judge.repository import Repository, read
from app.judge.schemas import Rubric
from app.judge.scorecard import Bounds, Rules, recommendation, weigh
from app.judge.technology import sponsors, technologies

from .conftest import AGENTS, RUBRIC
from .repositories import ADA, BO, HOUR, README, SOURCE, START, TEST, Made, build, good

RULES = Rules(Rubric.model_validate(RUBRIC), AGENTS, "traditional", {}, prices={"bug_hunter": 0.002})
BAD = """import os, pickle, subprocess
API_KEY = "AKIAIOSFODNN7EXAMPLE"


def run(a, b, c, d, e, f, g, h, i, j, k, l):
    subprocess.call("ls " + a, shell=True)
    try:
        pickle.loads(b)
    except:
        pass
    if a:
        if b:
            if c:
                if d:
                    if e:
                        if f:
                            if g:
                                if h:
                                    if i:
                                        if j:
                                            if k:
                                                return eval(l)
    return undefined_name


def rows(cursor, name):
    return cursor.execute(f"SELECT * FROM votes WHERE name = '{name}'")
"""


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """A good repository and a bad one, judged once for the module."""
    folder = tmp_path_factory.mktemp("judged")
    good(folder / "good")
    build(folder / "bad", [Made(ADA, START, "wip", {"run.py": BAD, ".env": "SECRET=1\n", "requirements.txt": "flask\nrequests==2.0.0\n"}),
                           Made(ADA, START + 60, "wip", {"run.py": BAD + "\n"})])  # fmt: skip
    cards = {}
    for name in ("good", "bad"):
        scratch = folder / f"{name}-scratch"
        scratch.mkdir()
        cards[name] = scorecard.judge(Clone(folder / name, "HEAD", "main", 1, 0.1), scratch, RULES)
    return cards


def of(folder: Path, files: dict[str, Any], message: str = "Count the votes at last") -> Repository:
    path = build(folder / f"r{len(list(folder.iterdir()))}", [Made(ADA, START, message, files)])
    return read(Clone(path, "HEAD", "main", 1, 0.0), most_files=100)


def test_every_agent_has_its_sub_scores(judged: dict[str, dict[str, Any]]) -> None:
    assert SUB_SCORES == {
        "bug_hunter": ("code_quality", "security", "test_coverage", "error_handling", "dependency_hygiene"),
        "performance": ("architecture", "database_design", "api_design", "scalability", "resource_efficiency"),
        "innovation": ("technical_novelty", "creative_problem_solving", "architecture_elegance", "readme_quality", "demo_potential"),
        "ai_detection": ("commit_authenticity", "development_velocity", "authorship_consistency", "iteration_depth", "ai_generation_indicators")}  # fmt: skip
    for card in judged.values():
        for name, agent in card["agents"].items():
            assert tuple(agent["scores"]) == SUB_SCORES[name]
            assert all(0 <= score <= 10 for score in agent["scores"].values())
            assert agent["overall_score"] == pytest.approx(sum(agent["scores"].values()) / 5, abs=0.01)


def test_the_overall_score_is_the_weighted_sum(judged: dict[str, dict[str, Any]]) -> None:
    for card in judged.values():
        exact = sum(
            sum(card["agents"][one["agent"]]["scores"].values()) / 5 * one["weight"] * 10
            for one in RUBRIC["dimensions"]
        )  # type: ignore[attr-defined, index]
        assert card["overall_score"] == pytest.approx(exact, abs=0.006)
        assert card["overall_score"] == round(card["overall_score"], 2)
        assert card["confidence"] == min(agent["confidence"] for agent in card["agents"].values())
        assert card["recommendation"] == recommendation(card["overall_score"])


def test_weighing_by_hand() -> None:
    rubric = Rubric.model_validate({"name": "R", "dimensions": [
        {"name": "A", "weight": 0.7, "agent": "bug_hunter"}, {"name": "B", "weight": 0.2, "agent": "innovation"}, {"name": "C", "weight": 0.1, "agent": "innovation"}]})  # fmt: skip
    dimensions, overall = weigh(rubric, {"bug_hunter": 8.123, "innovation": 5.0})
    assert overall == 71.86
    assert {name: one["weighted"] for name, one in dimensions.items()} == {"A": 56.86, "B": 10.0, "C": 5.0}


@pytest.mark.parametrize(
    ("overall", "name"),
    [(100, "strong_contender"), (80, "strong_contender"), (79.99, "solid_submission"), (65, "solid_submission"), (64.99, "needs_improvement"),
     (45, "needs_improvement"), (44.99, "concerns_flagged"), (0, "concerns_flagged")],
)  # fmt: skip
def test_recommendations_at_their_borders(overall: float, name: str) -> None:
    assert recommendation(overall) == name


def test_good_work_is_worth_more_than_bad(judged: dict[str, dict[str, Any]]) -> None:
    good_, bad = judged["good"], judged["bad"]
    assert good_["overall_score"] > bad["overall_score"] + 25
    for name in ("code_quality", "security", "test_coverage", "error_handling", "dependency_hygiene"):
        assert good_["agents"]["bug_hunter"]["scores"][name] > bad["agents"]["bug_hunter"]["scores"][name], name
    assert bad["agents"]["performance"]["scores"]["database_design"] < 5
    assert bad["agents"]["bug_hunter"]["scores"]["test_coverage"] == 0


def test_known_faults_are_found_where_they_are(judged: dict[str, dict[str, Any]]) -> None:
    found = {(one["tool"], one["rule"], one["line"]) for one in judged["bad"]["static_analysis"]["findings"]}
    lines = BAD.split("\n")
    line = lambda text: next(n for n, row in enumerate(lines, 1) if text in row)  # noqa: E731
    assert ("bandit", "B602", line("shell=True")) in found
    assert ("bandit", "B307", line("eval(")) in found
    assert ("ruff", "F821", line("undefined_name")) in found
    assert ("radon", "CC", line("def run")) in found
    assert judged["bad"]["static_analysis"]["complex_functions"] == [
        {"name": "run", "file": "run.py", "line": line("def run"), "complexity": 13}
    ]
    evidence = judged["bad"]["agents"]["bug_hunter"]["evidence"]
    assert {("A secret in the source", "run.py", 2), ("A file of secrets is in the repository", ".env", None)} <= {
        (one["finding"], one["file"], one["line"]) for one in evidence}  # fmt: skip
    assert judged["bad"]["static_analysis"]["dependencies"] == {
        "count": 2,
        "pinned": 1,
        "unbounded": ["flask"],
        "locked": False,
    }
    assert judged["good"]["static_analysis"]["tools_run"] == ["bandit", "pip-audit (detect-only)", "radon", "ruff"]


def test_every_piece_of_evidence_exists(judged: dict[str, dict[str, Any]]) -> None:
    texts = {"good": {"README.md": README, "Dockerfile": "FROM scratch\n", "app/votes.py": SOURCE},
             "bad": {"run.py": BAD + "\n", ".env": "SECRET=1\n", "requirements.txt": "flask\nrequests==2.0.0\n"}}  # fmt: skip
    seen = 0
    for name, card in judged.items():
        for agent in card["agents"].values():
            for one in agent["evidence"]:
                text = texts[name][one["file"]]
                assert one["line"] is None or 1 <= one["line"] <= text.count("\n"), one
                seen += 1
    assert seen >= 8


def test_evidence_that_does_not_exist_is_dropped(tmp_path: Path) -> None:
    repository = of(tmp_path, {"a.py": "1\n2\n"})
    rows = [
        Found("x", file, line, "low", "llm")
        for file, line in (("a.py", 2), ("a.py", 3), ("a.py", 0), ("a.py", None), ("b.py", 1), ("../a.py", None))
    ]
    assert [(one.file, one.line) for one in real(rows, repository)] == [("a.py", 2), ("a.py", None)]


def test_nothing_of_a_submission_is_executed(tmp_path: Path) -> None:
    sign = tmp_path / "ran"
    code = f"open({str(sign)!r}, 'w').write('ran')\n"
    files = dict.fromkeys(
        (
            "setup.py",
            "conftest.py",
            "__init__.py",
            "sitecustomize.py",
            "bandit.py",
            "radon.py",
            "ruff.py",
            "ast.py",
            "json.py",
            "a.py",
        ),
        code,
    )
    files |= {"package.json": json.dumps({"scripts": {"preinstall": f"touch {sign}"}}), "eslint.config.js": f"require('fs').writeFileSync({str(sign)!r}, 'x')",
              "pyproject.toml": "[tool.ruff]\nextend = '/etc/passwd'\n", "Makefile": f"all:\n\ttouch {sign}\n"}  # fmt: skip
    path = build(tmp_path / "r", [Made(ADA, START, "Count", files)])
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    told = scorecard.judge(Clone(path, "HEAD", "main", 1, 0.0), scratch, RULES)
    assert not sign.exists()
    assert set(told["static_analysis"]["tools_run"]) >= {"bandit", "radon", "ruff"}


def test_a_missing_tool_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "t").mkdir()
    report = tools.analyse(of(tmp_path, {"a.js": "let a = 1;\n", "a.py": "x = 1\n"}), tmp_path / "t", seconds=30)
    assert report.failed == {"eslint": "not installed"}


def test_a_tool_that_takes_too_long_or_talks_nonsense_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object) -> list[Any]:
        raise TooLong

    def nonsense(*_: object) -> list[Any]:
        return [json.loads("<html>")]

    monkeypatch.setattr(tools, "_bandit", late)
    monkeypatch.setattr(tools, "_radon", nonsense)
    (tmp_path / "t").mkdir()
    report = tools.analyse(of(tmp_path, {"a.py": "x = 1\n"}), tmp_path / "t", seconds=30)
    assert report.failed == {"bandit": "took longer than 30 seconds", "radon": "gave no readable answer"}
    assert "ruff" in report.ran


def test_an_eslint_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    row = '[{"filePath": "/x/f00000.js", "messages": [{"ruleId": "no-eval", "severity": 2, "message": "eval", "line": 2}]}]'
    (programs / "eslint").write_text(f"#!/bin/sh\ncase \"$*\" in *--no-config-lookup*) echo '{row}';; esac\n")
    (programs / "eslint").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    (tmp_path / "t").mkdir()
    report = tools.analyse(of(tmp_path, {"src/a.js": "let a;\neval(a);\n"}), tmp_path / "t", seconds=30)
    assert [(one.rule, one.file, one.line, one.severity) for one in report.findings] == [
        ("no-eval", "src/a.js", 2, "medium")
    ]


def test_policies_weigh_the_signs_of_an_assistant(tmp_path: Path) -> None:
    body = "Count the votes at last\n\nCo-authored-by: Claude <noreply@anthropic.com>"
    files = {"a.py": SOURCE, "CLAUDE.md": "Be brief.\n"}
    path = build(tmp_path / "r", [Made(ADA, START + n * HOUR, body, {**files, "n.py": f"{n}\n"}) for n in range(3)])
    told = {}
    for number, (policy, config) in enumerate(
        (("full_vibe", {}), ("ai_assisted", {}), ("custom", {"penalty": 0.9}), ("traditional", {}), ("no_ai", {}))
    ):
        scratch = tmp_path / f"s{number}"
        scratch.mkdir()
        rules = Rules(RULES.rubric, AGENTS, policy, config)
        told[policy] = scorecard.judge(Clone(path, "HEAD", "main", 1, 0.0), scratch, rules)["agents"]["ai_detection"]
    scores = {policy: one["scores"]["ai_generation_indicators"] for policy, one in told.items()}
    assert scores["full_vibe"] == 10
    assert scores["full_vibe"] > scores["ai_assisted"] > scores["custom"] > scores["traditional"] == scores["no_ai"]
    assert ("Instructions for an assistant", "CLAUDE.md") in {
        (one["finding"], one["file"]) for one in told["no_ai"]["evidence"]
    }


def test_only_the_agents_of_the_hackathon_judge(tmp_path: Path) -> None:
    rubric = Rubric.model_validate({"name": "R", "dimensions": [{"name": "A", "weight": 1, "agent": "bug_hunter"}]})
    (tmp_path / "s").mkdir()
    path = build(tmp_path / "r", [Made(ADA, START, "Count", {"a.py": SOURCE, "tests/test_a.py": TEST})])
    rules = Rules(
        rubric,
        ["bug_hunter"],
        "traditional",
        {},
        start=START + HOUR,
        end=None,
        prices={"bug_hunter": 0.5, "innovation": 9.0},
    )
    told = scorecard.judge(Clone(path, "HEAD", "main", 1, 0.0), tmp_path / "s", rules, bounds=Bounds(most_files=10))
    assert list(told["agents"]) == ["bug_hunter"]
    assert told["total_cost_usd"] == 0.5
    assert told["repository"]["commits_outside_period"] == 1


class Plugged:
    """An agent as somebody may plug in."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def review(self, subject: Subject, verdict: Verdict) -> Verdict:
        assert subject.repository.files
        return self.answer(verdict)


agent = Plugged(
    lambda verdict: Verdict(
        verdict.agent,
        dict.fromkeys(verdict.scores, 99.0),
        0.5,
        evidence=[Found("made up", "nowhere.py", 1, "high", "llm")],
    )
)


def test_an_llm_agent_can_be_plugged_in_and_is_kept_in_its_frame(tmp_path: Path) -> None:
    assert llm.load("") is None  # off by default
    plugged = llm.load(f"{__name__}:agent")
    assert plugged is agent
    path = build(tmp_path / "r", [Made(ADA, START, "Count", {"a.py": SOURCE})])
    (tmp_path / "s").mkdir()
    told = scorecard.judge(Clone(path, "HEAD", "main", 1, 0.0), tmp_path / "s", RULES, llm=plugged)
    assert all(score == 10 for one in told["agents"].values() for score in one["scores"].values())
    assert all(one["evidence"] == [] for one in told["agents"].values())
    for name in ("nothing:there", "json:nothing", "json"):
        with pytest.raises(ValueError, match="JUDGE_AGENT"):
            llm.load(name)
    own = Verdict("bug_hunter", {"code_quality": 1.0}, 0.5)
    subject = Subject(of(tmp_path, {"a.py": SOURCE}), tools.Report(), None, None)  # type: ignore[arg-type]
    for answer in (
        lambda _: 1 / 0,
        lambda _: Verdict("x", {"code_quality": 9.0}, 1.0),
        lambda _: Verdict("bug_hunter", {}, 1.0),
    ):
        assert llm.reviewed(Plugged(answer), subject, own) is own


def test_what_paths_say() -> None:
    assert [
        is_test(path)
        for path in (
            "tests/test_a.py",
            "src/a.test.ts",
            "a_test.go",
            "src/AppTest.java",
            "e2e/x.spec.ts",
            "contest.py",
            "tests/data.csv",
        )
    ] == [True] * 5 + [False] * 2
    assert [is_ci(path) for path in (".github/workflows/ci.yml", ".gitlab-ci.yml", "x/.github/workflows/ci.yml")] == [
        True,
        True,
        False,
    ]
    assert language_of("node_modules/x.js") is None
    assert language_of("a/b.PY") == "Python"
    assert [part_of(path) for path in ("a.py", "a.tsx", "Dockerfile", "a.ipynb", "a.md", "a.bin")] == [
        "backend",
        "frontend",
        "devops",
        "data",
        "docs",
        None,
    ]


def test_technologies_and_services() -> None:
    assert technologies("import fastapi\nfrom torch import nn\n", '{"react": "^18"}') == ["FastAPI", "React", "PyTorch"]
    assert technologies("fastapi = 'a word'\n", "") == []
    assert sponsors("import openai\nboto3.client('s3')") == ["OpenAI", "AWS"]


def test_dependencies_of_every_kind(tmp_path: Path) -> None:
    found, locked = tools.dependencies(of(tmp_path, {
        "requirements.txt": "# comment\n-r other.txt\nflask==3.0.0 --hash=sha256:1\nDjango>=4\nrequests\nnot a requirement !!\n",
        "pyproject.toml": '[project]\nname = "x"\ndependencies = ["numpy>=2", "pandas"]\n', "package.json": '{"dependencies": {"react": "18.2.0", "vue": "^3", "x": "*"}}',
        "uv.lock": "x", "sub/package.json": "not json", "sub/pyproject.toml": "not toml ["}))  # fmt: skip
    assert locked
    assert {one.name: (one.pinned, one.bounded, one.line) for one in found} == {
        "flask": (True, True, 3), "django": (False, True, 4), "requests": (False, False, 5), "numpy": (False, True, 3), "pandas": (False, False, 3),
        "react": (True, True, 1), "vue": (False, True, 1), "x": (False, False, 1)}  # fmt: skip


def test_summaries_say_best_and_weakest(judged: dict[str, dict[str, Any]]) -> None:
    for card in judged.values():
        for one in card["agents"].values():
            assert re.match(
                r"^\d+\.\d of 10: best in [a-z ]+ \([\d.]+\), weakest in [a-z ]+ \([\d.]+\)\.$", one["summary"]
            )
    assert BO  # the good repository has two people
    assert judged["good"]["repository"]["contributor_count"] == 2
