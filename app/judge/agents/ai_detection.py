"""AI detection: do the commits look like people's work, and does that fit the hackathon's policy?

The rules see only what is written down: trailers, files of assistants, how work was cut into commits. That somebody used an assistant
without a trace they cannot see, and they do not pretend to.
"""

import re
from collections import Counter
from typing import Final

from app.judge.agents.subject import SUB_SCORES, Found, Subject, Verdict, bounded, from_places
from app.judge.team import gaps

_ASSISTANT: Final = re.compile(
    r"\b(claude|copilot|cursor|chatgpt|codex|gemini|devin|aider|windsurf|codeium|anthropic|openai)\b", re.IGNORECASE
)
_SAYS: Final = re.compile(
    r"generated (with|by) (claude|copilot|cursor|chatgpt|gpt|codex|gemini|devin|aider|an? ai)|as an ai (language )?model",
    re.IGNORECASE,
)
_FILES: Final = re.compile(
    r"(^|/)(CLAUDE\.md|AGENTS\.md|GEMINI\.md|\.cursorrules|\.windsurfrules|\.aider[^/]*|copilot-instructions\.md)$|(^|/)\.(cursor|claude)/"
)
_PLACEHOLDER: Final = re.compile(
    r"#\s*(\.\.\. ?rest of|your code here|existing code)|//\s*(\.\.\. ?existing code|your code here|rest of (the )?code)",
    re.IGNORECASE,
)
FACTORS: Final = {
    "full_vibe": 0.0,
    "ai_generated": 0.0,
    "ai_assisted": 0.4,
    "custom": 0.7,
    "traditional": 1.0,
    "no_ai": 1.0,
}
"""How much signs of an assistant count against a submission, by policy. `ai_policy_config.penalty` (0 to 1) says otherwise for custom."""


def judge(subject: Subject) -> Verdict:
    """Judge the history."""
    commits = subject.repository.commits
    if not commits:
        return Verdict(
            "ai_detection",
            dict.fromkeys(SUB_SCORES["ai_detection"], 0.0),
            0.9,
            improvements=["No commit is a person's."],
        )
    lines = [one.lines for one in commits]
    total = sum(lines)
    largest = max(lines) / total if total else 1.0
    subjects = Counter(one.subject.strip().lower() for one in commits)
    repeated = sum(number - 1 for number in subjects.values()) / len(commits)
    kinds = {flag.kind for flag in subject.team.flags}
    authentic = (
        4
        + 4 * subject.team.message_quality
        + 2 * min(1.0, len(commits) / 20)
        - 3 * max(0.0, largest - 0.5) * 2
        - 3 * repeated
        - 3 * ("history_rewriting" in kinds)
    )

    between = gaps(commits)
    hours = sum(gap for gap in between if gap < 8)  # a longer gap is a night, or a break
    pace = total / max(0.5, hours)
    velocity = 8.0 if pace <= 1500 else 8 - min(6.0, (pace - 1500) / 1500)
    velocity += 2 * (len(commits) >= 10) - 2 * subject.team.panic_push - (2 if len(commits) < 3 else 0)

    assistants = [
        c
        for c in commits
        if any(_ASSISTANT.search(f"{p.name} {p.email}") for p in (c.author, *c.co_authors))
        or _SAYS.search(f"{c.subject}\n{c.body}")
    ]
    zones = {one.author.email: set() for one in commits}  # type: dict[str, set[object]]
    for one in commits:
        zones[one.author.email].add(one.at.utcoffset())
    wandering = sum(len(found) > 3 for found in zones.values())
    many = sum(len(one.emails) > 2 for one in subject.team.contributors)
    unknown = sum(one.author.name in {"unknown", "root", "user", "your name"} for one in commits) / len(commits)
    consistent = 9 - 1.5 * wandering - 1.0 * many - 4 * unknown + (1 if len(commits) >= 5 else 0)

    touched = Counter(change.path for one in commits for change in one.changes)
    again = sum(number > 1 for number in touched.values()) / len(touched) if touched else 0.0
    deleted = sum(change.deleted for one in commits for change in one.changes)
    depth = 1 + 3 * min(1.0, len(commits) / 25) + 4 * again + 2 * min(1.0, (deleted / total if total else 0) / 0.15)

    own = subject.config.get("penalty")
    factor = (
        min(1.0, max(0.0, float(own)))
        if subject.policy == "custom" and isinstance(own, int | float)
        else FACTORS.get(subject.policy, 0.7)
    )
    files = [file for file in subject.repository.files if _FILES.search(file.path)]
    said, left = subject.scan(_SAYS), subject.scan(_PLACEHOLDER, code_only=True)
    signs = (
        5 * len(assistants) / len(commits)
        + min(2.0, 1.0 * len(files))
        + min(2.0, 1.0 * len(said))
        + min(3.0, 1.0 * len(left))
    )
    if largest > 0.8 and len(commits) > 1:
        signs += 2
    evidence = [
        *(Found("Instructions for an assistant", file.path, None, "info", "files") for file in files[:3]),
        *from_places(said[:3], "Says that it was generated", "info", "pattern"),
        *from_places(left[:3], "A placeholder was left behind", "low", "pattern"),
    ]
    strengths = [s for s, good in (
        (f"{len(commits)} commits in {len(touched)} files, {again:.0%} of them worked on again", len(commits) >= 15 and again >= 0.3),
        ("Messages say what was done", subject.team.message_quality >= 0.7),
    ) if good]  # fmt: skip
    improvements = [s for s, bad in (
        (f"One commit has {largest:.0%} of all lines", largest > 0.6),
        (f"{repeated:.0%} of the messages repeat others", repeated > 0.2),
        (f"{len(assistants)} commits name an assistant, which the policy {subject.policy} counts", bool(assistants) and factor > 0),
        ("Commit in smaller steps", len(commits) < 5),
    ) if bad]  # fmt: skip
    scores = {
        "commit_authenticity": bounded(authentic),
        "development_velocity": bounded(velocity),
        "authorship_consistency": bounded(consistent),
        "iteration_depth": bounded(depth),
        "ai_generation_indicators": bounded(10 - factor * signs),
    }
    confidence = 0.3 + 0.6 * min(1.0, len(commits) / 30) - 0.1 * subject.repository.truncated
    return Verdict("ai_detection", scores, round(max(0.2, confidence), 2), strengths, improvements, evidence)
