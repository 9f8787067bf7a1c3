"""The bug hunter: code quality, security, tests, error handling, dependencies."""

import re
from typing import Final

from app.judge.agents.subject import SUB_SCORES, Found, Subject, Verdict, bounded, from_places, from_tools
from app.judge.tools import COMPLEX

_WEIGHT: Final = {"info": 0.1, "low": 0.25, "medium": 0.8, "high": 2.0, "critical": 3.0}
_SECRET: Final = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN (?:RSA |EC |OPENSSH )?PRIVATE KEY-----|\bsk-[A-Za-z0-9_-]{32,}|"
    r"\bghp_[A-Za-z0-9]{36}\b|\bxox[bp]-[0-9A-Za-z-]{20,}"
    r"|(?i:(?:api_?key|secret|password|token))[\"']?\s*[:=]\s*[\"'][A-Za-z0-9/+_-]{24,}[\"']"
)
_ENV_FILE: Final = re.compile(r"(^|/)\.env(\.local|\.production)?$")
_HANDLED: Final = re.compile(
    r"\bexcept\s+\(?\w|\bcatch\s*\(|\bif err != nil\b|\.catch\(|\brescue\b|\bmatch\s.*\bErr\(|\braise\s+\w|\bthrow new\b"
)
_SWALLOWED: Final = re.compile(
    r"\bexcept(\s+(Base)?Exception)?(\s+as \w+)?:\s*\n?\s*pass\b|\bexcept:|\bcatch\s*(\([^)]*\))?\s*\{\s*\}"
)
_TODO: Final = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
_LONG: Final = 600


def judge(subject: Subject) -> Verdict:
    """Judge the code.

    Deductions are for each thousand lines: a low finding .25, a medium .8, a high 2. Without code every sub-score is 0.
    """
    report = subject.report
    if not subject.code_lines:
        nothing = dict.fromkeys(SUB_SCORES["bug_hunter"], 0.0)
        return Verdict("bug_hunter", nothing, 0.9, improvements=["There is no source code to judge."])
    lint = [*report.of("ruff"), *report.of("eslint"), *report.of("radon")]
    long_files = [file for file in subject.code if file.lines > _LONG]
    todo = subject.scan(_TODO, code_only=True)
    quality = 10 - sum(_WEIGHT[f.severity] for f in lint) / subject.thousands - 0.5 * len(long_files) - 0.1 * len(todo)

    secrets = subject.scan(_SECRET, most=10)
    env = subject.has_file(_ENV_FILE)
    bandit = report.of("bandit")
    security = (
        10 - sum(_WEIGHT[f.severity] for f in bandit) / subject.thousands - 3 * len(secrets) - 2 * (env is not None)
    )

    ratio = subject.test_lines / subject.code_lines
    coverage = 8 * min(1.0, ratio / 0.4) + (2 if subject.strategy.workflows and subject.tests else 0)

    handled = len(subject.scan(_HANDLED, most=200, code_only=True))
    swallowed = subject.scan(_SWALLOWED, most=40, code_only=True)
    errors = 4 + min(6.0, 1.5 * handled / subject.thousands) - min(6.0, 1.0 * len(swallowed))

    deps, hygiene = report.dependencies, 5.0
    if deps:
        limited = sum(one.bounded for one in deps) / len(deps)
        pinned = sum(one.pinned for one in deps) / len(deps)
        hygiene = 3 * limited + 3 * pinned + 1 + 3 * report.locked + (3 * (1 - pinned) if report.locked else 0)
    elif report.locked:
        hygiene = 8.0

    evidence = [
        *from_places(secrets, "A secret in the source", "critical", "pattern"),
        *([Found("A file of secrets is in the repository", env.path, None, "high", "pattern")] if env else []),
        *from_tools([f for f in bandit if f.severity != "low"])[:4],
        *from_places(swallowed[:3], "An error is swallowed", "medium", "pattern"),
        *from_tools([f for f in lint if f.severity != "low"])[:6],
        *(Found(f"{file.lines} lines in one file", file.path, None, "low", "size") for file in long_files[:2]),
        *(Found(f"{d.name} may be of any version", d.file, d.line, "low", "pip-audit") for d in deps if not d.bounded),
    ]
    complicated = sum(one.complexity > COMPLEX for one in report.functions)
    strengths = [
        sentence
        for sentence, good in (
            (f"{subject.test_lines} lines of tests for {subject.code_lines} of code", ratio >= 0.25),
            (
                "No medium or high finding by the security linter",
                bool(report.functions) and not any(f.severity != "low" for f in bandit) and not secrets,
            ),
            ("Dependencies are locked", report.locked),
            ("No function is too complex", len(report.functions) >= 5 and not complicated),
        )
        if good
    ]
    improvements = [
        sentence
        for sentence, bad in (
            ("There are no tests", not subject.tests),
            (f"{complicated} functions have a cyclomatic complexity above {COMPLEX}", complicated > 0),
            (
                "Secrets belong into the environment, not into the repository; revoke those that were there",
                bool(secrets or env),
            ),
            (f"{len(swallowed)} places swallow errors", len(swallowed) > 0),
            (
                "Give every dependency a version, and keep a lock file",
                bool(deps) and not report.locked and not all(d.pinned for d in deps),
            ),
        )
        if bad
    ]
    ran = 1 - len(report.failed) / max(1, len(report.failed) + len(report.ran))
    python = sum(f.lines for f in subject.code if f.language == "Python") / subject.code_lines
    confidence = 0.45 + 0.25 * ran + 0.25 * python
    scores = {
        "code_quality": bounded(quality),
        "security": bounded(security),
        "test_coverage": bounded(coverage),
        "error_handling": bounded(errors),
        "dependency_hygiene": bounded(hygiene),
    }
    return Verdict("bug_hunter", scores, round(confidence, 2), strengths, improvements, evidence)
