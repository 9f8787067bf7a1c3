"""Who wrote what, and how a team worked together: shares, patterns, red flags, a grade, a profile of each contributor.

Thresholds are the specification's (docs/apps/judge.md). A commit with co-authors counts for each of them, so shares are of the sum of all
counts. What people did is judged by their commits in order of the authors' times.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Final, Literal

from app.judge.languages import is_test, language_of, part_of
from app.judge.repository import Commit, Person, Repository

HOUR: Final = 3600.0
REVIEW_WORDS: Final = ("review", "lgtm", "feedback", "pull request", "approved", "address comments", "pr comments")
_WEAK: Final = ("fix", "update", "wip")
_BALANCE: Final = ((0.40, 30), (0.50, 25), (0.60, 20), (0.70, 15), (0.80, 10))
_GRADES: Final = ((90, "A"), (80, "B"), (70, "C"), (60, "D"))

Seniority = Literal["junior", "mid", "senior"]


@dataclass(frozen=True)
class Flag:
    """Something to look at. `person` is who it is about, None for the team."""

    kind: str
    severity: Literal["medium", "high", "critical"]
    sentence: str
    person: str | None = None


@dataclass
class Contributor:
    """One person, whatever the addresses he committed from. `share` is of all counted commits, 0 to 1."""

    name: str
    emails: set[str]
    commits: list[Commit] = field(default_factory=list)
    share: float = 0.0
    added: int = 0
    deleted: int = 0
    files: Counter[str] = field(default_factory=Counter)

    @property
    def authored(self) -> int:
        """His commits, those as co-author included."""
        return len(self.commits)


@dataclass(frozen=True)
class Team:
    """How a team worked."""

    contributors: tuple[Contributor, ...]
    size: int
    ghosts: tuple[str, ...]
    flags: tuple[Flag, ...]
    patterns: tuple[str, ...]
    panic_push: bool
    message_quality: float
    parts: dict[str, int]
    points: int
    grade: str


def judge_team(repository: Repository, members: Sequence[str] = ()) -> Team:
    """Judge how these people worked; `members` are the names a team gave itself."""
    people = contributors(repository)
    commits = repository.commits
    ghosts = _ghosts(people, members)
    size = max(len(people) + len(ghosts), len(members))
    panic = panic_push(commits)
    flags = [*_shares(people, size), *_ghost_flags(ghosts), *_minimal(people, size), *_silos(people)]
    unhealthy = _unhealthy(people)
    flags += unhealthy
    flags += _rewriting(commits)
    if panic:
        flags.append(Flag("panic_push", "medium", "More than 40 % of the commits came in the last hour."))
    patterns = [
        name
        for name, there in (("pair_programming", pair_programming(repository)), ("code_review", code_review(commits)))
        if there
    ]
    quality = message_quality(commits)
    most = max((one.share for one in people), default=1.0)
    parts = {
        "balance": next((points for share, points in _BALANCE if most <= share + 1e-9), 5),
        "collaboration": 30 if patterns else 15,
        "message_quality": math.floor(20 * quality + 1e-9),
        "time_management": 20 - 10 * panic - 10 * bool(unhealthy),
    }
    points = sum(parts.values())
    grade = next((letter for least, letter in _GRADES if points >= least), "F")
    return Team(tuple(people), size, ghosts, tuple(flags), tuple(patterns), panic, quality, parts, points, grade)


def contributors(repository: Repository) -> list[Contributor]:
    """The people of a repository, most commits first; one who uses several addresses under one name, or one address, is one."""
    known: list[Contributor] = []
    by_email: dict[str, Contributor] = {}
    by_name: dict[str, Contributor] = {}

    def person(one: Person) -> Contributor:
        name = " ".join(one.name.lower().split())
        found = by_email.get(one.email) or by_name.get(name)
        if found is None:
            found = Contributor(one.name, set())
            known.append(found)
        found.emails.add(one.email)
        by_email[one.email] = found
        by_name.setdefault(name, found)
        return found

    counted = 0
    for commit in repository.commits:
        seen: list[Contributor] = []
        for one in repository.people_of(commit):
            who = person(one)
            if who in seen:
                continue
            seen.append(who)
            who.commits.append(commit)
            counted += 1
        if seen:  # lines are the author's
            for change in commit.changes:
                seen[0].added += change.added
                seen[0].deleted += change.deleted
                seen[0].files[change.path] += change.added + change.deleted
    for found in known:
        found.share = found.authored / counted if counted else 0.0
    return sorted(known, key=lambda one: (-one.authored, one.name.lower()))


def _authors(repository: Repository) -> list[int]:
    """For each commit, in order, who its author is."""
    people = contributors(repository)
    owner = {email: number for number, one in enumerate(people) for email in one.emails}
    return [owner[commit.author.email] for commit in repository.commits]


def pair_programming(repository: Repository) -> bool:
    """Whether two people took turns: A-B-A-B over four commits in a row."""
    order = _authors(repository)
    return any(a == c and b == d and a != b for a, b, c, d in zip(order, order[1:], order[2:], order[3:], strict=False))


def code_review(commits: Sequence[Commit]) -> bool:
    """Whether code was reviewed: words of it in at least 2 commits, or at least 3 merges."""
    words = sum(any(word in f"{one.subject}\n{one.body}".lower() for word in REVIEW_WORDS) for one in commits)
    return words >= 2 or sum(one.parents > 1 for one in commits) >= 3


def panic_push(commits: Sequence[Commit]) -> bool:
    """Whether of at least 5 commits more than 40 % came in the hour before the last one."""
    if len(commits) < 5:
        return False
    last = max(one.at.timestamp() for one in commits)
    late = sum(one.at.timestamp() > last - HOUR for one in commits)
    return late / len(commits) > 0.4


def message_quality(commits: Sequence[Commit]) -> float:
    """Share of commits whose subject has more than 3 words and does not open with fix, update or wip."""
    if not commits:
        return 0.0
    good = sum(len(one.subject.split()) > 3 and not one.subject.strip().lower().startswith(_WEAK) for one in commits)
    return good / len(commits)


def _shares(people: Sequence[Contributor], size: int) -> Iterable[Flag]:
    if size < 2 or not people:
        return
    most = people[0]
    if most.share > 0.8:
        yield Flag("extreme_imbalance", "critical", f"{most.name} made {most.share:.0%} of the commits.", most.name)
    elif most.share >= 0.7:
        yield Flag("significant_imbalance", "high", f"{most.name} made {most.share:.0%} of the commits.", most.name)


def _ghosts(people: Sequence[Contributor], members: Sequence[str]) -> tuple[str, ...]:
    """Members without a commit. Names may be written otherwise than in git: there are never more than people are missing."""
    names = {" ".join(one.name.lower().split()) for one in people}
    logins = {email.split("@")[0] for one in people for email in one.emails}
    lost = [
        member
        for member in dict.fromkeys(members)
        if (low := " ".join(member.lower().split())) not in names
        and low.lstrip("@") not in logins
        and low not in {email for one in people for email in one.emails}
    ]
    return tuple(lost[: max(0, len(dict.fromkeys(members)) - len(people))])


def _ghost_flags(ghosts: Sequence[str]) -> Iterable[Flag]:
    for name in ghosts:
        yield Flag("ghost_contributor", "critical", f"{name} is on the team and has no commit.", name)


def _minimal(people: Sequence[Contributor], size: int) -> Iterable[Flag]:
    if size < 3:
        return
    for one in people:
        if one.authored <= 2:
            yield Flag(
                "minimal_contribution",
                "high",
                f"{one.name} has {one.authored} commit{'s' * (one.authored != 1)} in a team of {size}.",
                one.name,
            )


def _silos(people: Sequence[Contributor]) -> Iterable[Flag]:
    for one in people:
        others = sorted(c.at.timestamp() for other in people if other is not one for c in other.commits)
        if one.authored < 5 or not others:
            continue
        own = [commit.at.timestamp() for commit in one.commits]
        if all(_nearest(at, others) > HOUR for at in own):
            yield Flag("silo", "medium", f"{one.name} never worked within an hour of anybody else.", one.name)


def _nearest(at: float, others: Sequence[float]) -> float:
    return min(abs(at - other) for other in others)


def _unhealthy(people: Sequence[Contributor]) -> list[Flag]:
    found = []
    for one in people:
        night = sum(2 <= commit.local_hour < 6 for commit in one.commits)
        if night > 10:
            sentence = f"{one.name} made {night} commits between 2 and 6 at night."
            found.append(Flag("unhealthy_hours", "medium", sentence, one.name))
    return found


def _rewriting(commits: Sequence[Commit]) -> Iterable[Flag]:
    groups = sum(number >= 3 for number in Counter(one.committed for one in commits).values())
    if groups >= 5:
        yield Flag("history_rewriting", "high", f"{groups} times three or more commits have the same second.")


def role_of(one: Contributor) -> str:
    """A contributor's role, by the lines of his own files: backend, frontend, full_stack, devops, data, docs."""
    lines: Counter[str] = Counter()
    for path, number in one.files.items():
        if part := part_of(path):
            lines[part] += number
    total = sum(lines.values())
    if not total:
        return "unknown"
    if lines["backend"] >= 0.25 * total and lines["frontend"] >= 0.25 * total:
        return "full_stack"
    code = {part: number for part, number in lines.items() if part != "docs"} or lines
    return max(sorted(code), key=lambda part: code[part])


def seniority_of(commits: int, lines: int) -> Seniority:
    """More than 30 commits and 5000 lines: senior; more than 15 and 2000: mid."""
    if commits > 30 and lines > 5000:
        return "senior"
    return "mid" if commits > 15 and lines > 2000 else "junior"


_SENIOR_POINTS: Final = {"junior": 0.0, "mid": 12.5, "senior": 25.0}


def individual(one: Contributor, team: Team) -> dict[str, Any]:
    """A contributor's profile.

    The hiring score (0-100) is seniority (25), commits up to 40 (25), messages (20), breadth of languages up to 4 (15), own tests (15),
    less 15 for each critical and 8 for any other flag about him.
    """
    skills = [name for name, _ in _languages(one).most_common(6)]
    level = seniority_of(one.authored, one.added + one.deleted)
    flags = [flag for flag in team.flags if flag.person == one.name]
    quality = message_quality(one.commits)
    score = (
        _SENIOR_POINTS[level]
        + 25 * min(1.0, one.authored / 40)
        + 20 * quality
        + 15 * min(1.0, len(skills) / 4)
        + 15 * any(is_test(path) for path in one.files)
        - sum(15 if flag.severity == "critical" and flag.kind != "extreme_imbalance" else 8 for flag in flags)
    )
    return {
        "name": one.name,
        "role": role_of(one),
        "seniority": level,
        "commits": one.authored,
        "share": round(one.share, 4),
        "lines_added": one.added,
        "lines_deleted": one.deleted,
        "files": len(one.files),
        "skills": skills,
        "message_quality": round(quality, 4),
        "hiring_score": round(min(100.0, max(0.0, score)), 1),
        "red_flags": [flag.kind for flag in flags],
    }


def _languages(one: Contributor) -> Counter[str]:
    found: Counter[str] = Counter()
    for path, number in one.files.items():
        if name := language_of(path):
            found[name] += number
    return found


def team_out(team: Team) -> dict[str, Any]:
    """A team as the API gives it."""
    return {
        "grade": team.grade,
        "points": team.points,
        "grade_parts": team.parts,
        "size": team.size,
        "contributor_count": len(team.contributors),
        "ghost_contributors": list(team.ghosts),
        "shares": {one.name: round(one.share, 4) for one in team.contributors},
        "collaboration_patterns": list(team.patterns),
        "panic_push": team.panic_push,
        "message_quality": round(team.message_quality, 4),
        "red_flags": [asdict(flag) for flag in team.flags],
        "individuals": [individual(one, team) for one in team.contributors],
    }


def gaps(commits: Sequence[Commit]) -> list[float]:
    """Hours between commits, in order."""
    return [(b.at.timestamp() - a.at.timestamp()) / HOUR for a, b in pairwise(commits)]


def by_author(commits: Sequence[Commit]) -> dict[str, list[Commit]]:
    """Commits by their author's address."""
    found: dict[str, list[Commit]] = defaultdict(list)
    for one in commits:
        found[one.author.email].append(one)
    return found
