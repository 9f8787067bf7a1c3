"""Real repositories of people whose work is known give the known grade, flags, roles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from app.judge.clone import Clone, clone
from app.judge.facts import facts
from app.judge.repository import Repository, read
from app.judge.settings import JudgeSettings
from app.judge.strategy import judge_strategy
from app.judge.team import Team, individual, judge_team, message_quality, seniority_of

from .repositories import ADA, BO, CY, DEE, HOUR, README, SOURCE, START, TEST, Made, build, good

Who = tuple[str, str]
DAY = 24 * HOUR


class Desk:
    """Builds a repository, clones it as the worker does, and reads it."""

    def __init__(self, repos: Path, settings: JudgeSettings, tmp: Path) -> None:
        self.repos, self.settings, self.tmp, self.made = repos, settings, tmp, 0

    def read(self, commits: Sequence[Made]) -> Repository:
        """Read a bare repository as it is: quicker than through a clone, which `take` makes."""
        path = build(self.repos / "team" / f"r{self.made}", list(commits))
        self.made += 1
        return read(Clone(path, "HEAD", "main", 1, 0.0), most_files=1000)

    def take(self, path: Path) -> tuple[Clone, Repository]:
        folder = self.tmp / f"c{self.made}"
        folder.mkdir()
        self.made += 1
        cloned = clone(f"https://github.com/team/{path.name}", folder, self.settings)
        return cloned, read(cloned, most_files=1000)

    def team(self, commits: Sequence[Made], members: Sequence[str] = ()) -> Team:
        return judge_team(self.read(commits), members)


@pytest.fixture
def desk(repos: Path, settings: JudgeSettings, tmp_path: Path) -> Desk:
    return Desk(repos, settings, tmp_path)


def work(
    order: Sequence[Who],
    *,
    gap: float = 2 * HOUR,
    start: float = START,
    message: str = "Count the votes of part {}",
    zone: str = "+0000",
) -> list[Made]:
    return [
        Made(who, start + number * gap, message.format(number), {f"p{number % 5}.py": f"n = {number}\n"}, zone)
        for number, who in enumerate(order)
    ]


def kinds(team: Team) -> dict[str, str]:
    return {flag.kind: flag.severity for flag in team.flags}


def test_grade_a_two_who_take_turns(desk: Desk) -> None:
    team = desk.team(work([ADA, BO] * 6, gap=HOUR / 2))
    assert (team.grade, team.points, team.parts) == (
        "A",
        95,
        {"balance": 25, "collaboration": 30, "message_quality": 20, "time_management": 20},
    )
    assert team.patterns == ("pair_programming",)
    assert team.flags == ()


def test_grade_a_with_all_hundred_points_three_equals(desk: Desk) -> None:
    team = desk.team(work([ADA, BO, ADA, BO, CY, ADA, CY, BO, CY, BO, CY, ADA]))
    assert (team.grade, team.points) == ("A", 100)


def test_grade_b_no_collaboration(desk: Desk) -> None:
    team = desk.team(work([ADA] * 4 + [BO] * 4 + [CY] * 4))
    assert (team.grade, team.points) == ("B", 85)
    assert team.patterns == ()


def test_grade_c_unequal_and_half_the_messages_weak(desk: Desk) -> None:
    order = [ADA] * 6 + [BO] * 4  # 60 %: 20, collaboration 15, messages floor(20 * .8) = 16, time 20
    commits = work(order)
    for number in (1, 3):
        commits[number].message = "wip"
    team = desk.team(commits)
    assert (team.points, team.grade) == (71, "C")


def test_grade_d_one_does_most(desk: Desk) -> None:
    team = desk.team(work([ADA] * 15 + [BO] * 5))  # 75 %: 10
    assert (team.points, team.grade) == (65, "D")
    assert kinds(team)["significant_imbalance"] == "high"


def test_grade_f_alone_at_night_in_a_panic(desk: Desk) -> None:
    night = START - START % DAY + DAY + 2 * HOUR
    commits = work([ADA] * 12, start=night, gap=60, message="fix")
    team = desk.team(commits, ["Ada", "Bo"])
    assert team.parts == {"balance": 5, "collaboration": 15, "message_quality": 0, "time_management": 0}
    assert (team.points, team.grade) == (20, "F")
    assert kinds(team) == {
        "extreme_imbalance": "critical",
        "ghost_contributor": "critical",
        "unhealthy_hours": "medium",
        "panic_push": "medium",
    }


@pytest.mark.parametrize(
    ("ada", "bo", "points", "flag"),
    [(4, 6, 20, None), (5, 5, 25, None), (3, 7, 15, "significant_imbalance"), (2, 8, 10, "significant_imbalance"), (19, 81, 5, "extreme_imbalance"), (31, 69, 15, None)],
)  # fmt: skip
def test_balance_at_its_borders(desk: Desk, ada: int, bo: int, points: int, flag: str | None) -> None:
    team = desk.team(work([ADA] * ada + [BO] * bo))
    assert team.parts["balance"] == points
    assert {name for name in kinds(team) if "imbalance" in name} == ({flag} if flag else set())


def test_co_authors_count_and_bots_do_not(desk: Desk) -> None:
    both = "Count the votes again\n\nCo-authored-by: Bo <BO@example.org>\nCo-authored-by: copilot[bot] <x@y>"
    robot = ("dependabot[bot]", "49699333+dependabot[bot]@users.noreply.github.com")
    commits = [
        Made(ADA, START, both, {"a.py": "1\n"}),
        Made(robot, START + 60, "Bump a", {"a.py": "2\n"}),
        Made(ADA, START + HOUR, both, {"a.py": "3\n"}),
    ]
    repository = desk.read(commits)
    team = judge_team(repository)
    assert {one.name: one.authored for one in team.contributors} == {"Ada": 2, "Bo": 2}
    assert team.contributors[0].share == 0.5
    assert (len(repository.commits), repository.bot_commits) == (2, 1)


def test_one_person_with_several_addresses_is_one(desk: Desk) -> None:
    names = [
        ADA,
        ("Ada", "ada@work.example"),
        ("ada", "1234+ada@users.noreply.github.com"),
        ("Ada L", "ada@example.org"),
    ]
    assert [one.authored for one in desk.team(work(names)).contributors] == [4]


def test_review_is_found_by_words_or_merges(desk: Desk) -> None:
    words = work([ADA] * 3 + [BO] * 3)
    words[1].message = "Address the review of Bo"
    assert desk.team(words).patterns == ()
    words[4].message = "Count again after feedback from Ada"
    assert desk.team(words).patterns == ("code_review",)
    merges = work([ADA] * 4 + [BO] * 4)
    for number in (3, 5, 7):
        merges[number].merge = number - 1
    assert desk.team(merges).patterns == ("code_review",)


def test_a_ghost_is_who_has_no_commit(desk: Desk) -> None:
    team = desk.team(work([ADA, BO] * 3), ["Ada", "bo", "Cy"])
    assert team.ghosts == ("Cy",)
    assert kinds(team) == {"ghost_contributor": "critical"}
    assert (
        desk.team(work([ADA, BO] * 3), ["ada_l", "Bo"]).ghosts == ()
    )  # as many people as members: a name is only written otherwise


def test_minimal_contribution_in_a_team_of_three(desk: Desk) -> None:
    near = HOUR / 2
    assert kinds(desk.team(work([ADA, BO] * 4 + [CY, CY], gap=near))) == {"minimal_contribution": "high"}
    assert kinds(desk.team(work([ADA, BO] * 4 + [CY] * 3, gap=near))) == {}
    assert kinds(desk.team(work([ADA, ADA, ADA, ADA, BO, BO], gap=near))) == {}


def test_a_silo_never_meets_anybody(desk: Desk) -> None:
    apart = [
        *work([ADA] * 5, gap=600),
        *work([BO] * 5, gap=600, start=START + DAY),
        *work([CY] * 3, gap=600, start=START + DAY),
    ]
    team = desk.team(sorted(apart, key=lambda one: one.at))
    assert [(flag.kind, flag.person) for flag in team.flags if flag.kind == "silo"] == [("silo", "Ada")]


def test_nights_are_by_the_authors_own_clock(desk: Desk) -> None:
    three = START - START % DAY + 3 * HOUR
    own = work([ADA] * 11, start=three, gap=DAY)
    assert kinds(desk.team(own)) == {"unhealthy_hours": "medium"}
    assert kinds(desk.team(own[:10])) == {}
    assert kinds(desk.team(work([ADA] * 11, start=three, gap=DAY, zone="+0900"))) == {}
    assert kinds(desk.team(work([ADA] * 11, start=three + 9 * HOUR, gap=DAY, zone="-0900"))) == {
        "unhealthy_hours": "medium"
    }


def test_rewritten_history_has_the_same_second_again_and_again(desk: Desk) -> None:
    def groups(count: int) -> list[Made]:
        made = work([ADA, BO, CY] * count)
        for number, one in enumerate(made):
            one.committed = START + number // 3
        return made

    assert "history_rewriting" not in kinds(desk.team(groups(4)))
    assert kinds(desk.team(groups(5)))["history_rewriting"] == "high"


def test_a_panic_is_more_than_two_fifths_in_the_last_hour(desk: Desk) -> None:
    calm = work([ADA, BO] * 3)
    last = calm[-1].at
    late = [
        Made(BO, last + 60 * number, f"Count the votes again, part {number}", {"z.py": f"{number}\n"})
        for number in range(1, 4)
    ]
    assert desk.team([*calm, *late[:2]]).panic_push is False  # 3 of 8
    assert desk.team([*calm, *late]).panic_push is True  # 4 of 9
    assert desk.team(late).panic_push is False  # fewer than 5


@pytest.mark.parametrize(
    ("message", "good"),
    [("Count the votes again", True), ("Count the votes", False), ("Fix the count of votes", False), ("update all of the votes", False), ("WIP counting all of the votes", False)],
)  # fmt: skip
def test_message_quality(desk: Desk, message: str, good: bool) -> None:
    assert message_quality(desk.read(work([ADA], message=message)).commits) == float(good)


@pytest.mark.parametrize(
    ("commits", "lines", "level"),
    [
        (31, 5001, "senior"),
        (31, 5000, "mid"),
        (30, 5001, "mid"),
        (16, 2001, "mid"),
        (16, 2000, "junior"),
        (15, 9999, "junior"),
    ],
)
def test_seniority_at_its_borders(commits: int, lines: int, level: str) -> None:
    assert seniority_of(commits, lines) == level


def test_roles_are_by_own_files(desk: Desk) -> None:
    lines = "x\n" * 50
    commits = [
        Made(ADA, START, "Add the server of votes", {"api/main.py": lines}),
        Made(BO, START + HOUR, "Add the page of votes", {"web/app.tsx": lines, "web/a.css": lines}),
        Made(
            CY,
            START + 2 * HOUR,
            "Add pipeline and image files",
            {"Dockerfile": lines, ".github/workflows/ci.yml": lines},
        ),
        Made(DEE, START + 3 * HOUR, "Add both parts of it", {"api/two.py": lines, "web/two.ts": lines}),
    ]
    team = judge_team(desk.read(commits))
    assert {one.name: individual(one, team)["role"] for one in team.contributors} == {
        "Ada": "backend", "Bo": "frontend", "Cy": "devops", "Dee": "full_stack"}  # fmt: skip
    profile = individual(team.contributors[0], team)
    assert profile["skills"] == ["Python"]
    assert 0 <= profile["hiring_score"] <= 100


def test_facts_of_a_repository(desk: Desk, repos: Path) -> None:
    cloned, repository = desk.take(good(repos / "team" / "facts"))
    told = facts(repository, judge_team(repository).contributors, clone_seconds=cloned.seconds)
    assert (told["commit_count"], told["branch_count"], told["contributor_count"]) == (24, 2, 2)
    assert all(told[name] for name in ("has_tests", "has_ci", "has_dockerfile", "has_readme"))
    assert told["duration_hours"] == pytest.approx(23 * 2400 / 3600, abs=0.01)
    assert told["languages"] == {"Python": 1.0}
    assert told["default_branch"] == "main"
    bare = desk.read([Made(ADA, START, "One", {"a.js": "1\n2\n3\n", "b.py": "1\n"})])
    told = facts(bare, judge_team(bare).contributors, clone_seconds=0.0)
    assert not any(told[name] for name in ("has_tests", "has_ci", "has_dockerfile", "has_readme"))
    assert told["languages"] == {"JavaScript": 0.75, "Python": 0.25}


def test_only_the_newest_hundred_commits_are_cloned(desk: Desk) -> None:
    _, repository = desk.take(build(desk.repos / "team" / "long", work([ADA, BO] * 75)))
    assert len(repository.commits) == 100
    assert repository.truncated
    assert repository.commits[0].changes == ()  # the oldest one seems to add every file there is
    assert repository.commits[-1].subject == "Count the votes of part 149"


TRADEOFF = "We chose SQLite over PostgreSQL because it is one file."
LONG = README + "It does many things, and here they are at length. " * 12


@pytest.mark.parametrize(
    ("files", "name", "points", "maturity"),
    [
        ({"a.py": SOURCE}, "no_tests", 0, "junior"),
        ({"a.py": SOURCE, "README.md": "See the live demo at https://votes.vercel.app"}, "demo_first", 0, "junior"),
        ({"a.py": SOURCE, "tests/test_a.py": TEST}, "unit_focused", 1, "junior"),
        ({"a.py": SOURCE, "tests/integration/test_a.py": TEST, "tests/integration/test_b.py": TEST, "tests/test_c.py": TEST}, "integration_focused", 2, "junior"),
        ({"a.py": SOURCE, "e2e/vote.spec.ts": "x", "e2e/list.spec.ts": "x", "tests/test_c.py": TEST, "README.md": LONG}, "e2e_focused", 3, "mid"),
        ({"a.py": SOURCE, "tests/test_login.py": TEST, "tests/test_x.py": TEST}, "critical_path", 3, "mid"),
        ({"a.py": SOURCE, "tests/test_checkout.py": TEST, "README.md": TRADEOFF, ".github/workflows/ci.yml": "on: push"}, "critical_path", 6, "senior"),
    ],
)  # fmt: skip
def test_strategy(desk: Desk, files: dict[str, str], name: str, points: int, maturity: str) -> None:
    told = judge_strategy(desk.read([Made(ADA, START, "Add everything there is", files)]))
    assert (told.name, told.points, told.maturity) == (name, points, maturity)
