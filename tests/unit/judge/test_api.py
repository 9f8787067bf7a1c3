"""Every endpoint of the specification with its status codes, its fields and its owner."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.core import database
from app.judge.jobs import RUNNING
from app.judge.schemas import ULID_PATTERN
from app.judge.tables import Job, Scorecard, Submission, Task

from .conftest import AGENTS, PASSWORD, RUBRIC, V1, hackathon, make, register, submit, work_off
from .repositories import good

ISO = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
NOT_THERE = "01ARZ3NDEKTSV4RRFFQ69G5FAV"


def other(api: TestClient) -> dict[str, str]:
    """The header of another organizer."""
    return {"X-API-Key": register(api, "other@example.org")["api_key"]}


def card(overall: float, **more: Any) -> dict[str, Any]:
    """A scorecard as small as the leaderboard needs it."""
    return {
        "overall_score": overall, "recommendation": "solid_submission", "confidence": 0.7,
        "dimension_scores": {"Code": {"agent": "bug_hunter", "agent_score": 7.0, "weight": 1.0, "weighted": overall}},
        "agents": {}, "repository": {"languages": {}, "commit_count": 1, "branch_count": 1, "contributor_count": 1, "duration_hours": 0.0, "has_dockerfile": False, "technologies": [], "services": [], "has_tests": True, "has_ci": True, "has_readme": True},
        "static_analysis": {"findings": [], "tools_failed": [], "complex_functions": [], "dependencies": {"unbounded": []}},
        "team": {"grade": "B", "points": 80, "grade_parts": {}, "individuals": [], "red_flags": [], "ghost_contributors": [], "panic_push": False},
        "strategy": {"test_strategy": "unit_focused"}, "total_cost_usd": 0.0, **more,
    }  # fmt: skip


def scored(sub_id: str, overall: float, **more: Any) -> None:
    with database.session() as db:
        db.execute(update(Submission).where(Submission.id == sub_id).values(status="completed", overall_score=overall))
        db.add(Scorecard(submission_id=sub_id, data=json.dumps(card(overall, **more)), created_at=time.time()))


def test_registering_and_logging_in(anonymous: TestClient) -> None:
    told = register(anonymous)
    assert re.match(ULID_PATTERN, told["org_id"])
    assert re.fullmatch(r"vj_(live|test)_[A-Za-z0-9+/]{32}", told["api_key"])
    assert ISO.match(told["created_at"])
    again = anonymous.post(f"{V1}/organizers", json={"email": "ADA@example.org", "name": "A", "password": PASSWORD})
    assert again.status_code == 409
    assert "detail" in again.json()
    short = anonymous.post(f"{V1}/organizers", json={"email": "b@example.org", "name": "B", "password": "1234567"})
    assert short.status_code == 422
    assert PASSWORD not in short.text

    wrong = anonymous.post(f"{V1}/organizers/login", json={"email": "ada@example.org", "password": "wrong"})
    nobody = anonymous.post(f"{V1}/organizers/login", json={"email": "nobody@example.org", "password": "wrong"})
    assert (wrong.status_code, nobody.status_code) == (401, 401)
    assert wrong.json()["detail"] == nobody.json()["detail"]
    login = anonymous.post(f"{V1}/organizers/login", json={"email": "Ada@Example.org", "password": PASSWORD}).json()
    assert login["org_id"] == told["org_id"]
    assert login["api_key"] != told["api_key"]
    for key in (told["api_key"], login["api_key"]):  # a login revokes nothing
        me = anonymous.get(f"{V1}/organizers/me", headers={"X-API-Key": key})
        assert me.status_code == 200
        assert me.json()["email"] == "ada@example.org"


def test_what_is_open_without_a_key(anonymous: TestClient) -> None:
    for path in ("/health", f"{V1}/health", "/docs", "/openapi.json", f"{V1}/public/hackathons"):
        assert anonymous.get(path).status_code == 200, path


def test_every_other_route_needs_a_key(anonymous: TestClient) -> None:
    open_to_all = {("post", f"{V1}/organizers"), ("post", f"{V1}/organizers/login"), ("get", f"{V1}/health")}
    asked = 0
    for path, methods in anonymous.get("/openapi.json").json()["paths"].items():
        if not path.startswith(V1) or path.startswith(f"{V1}/public/"):
            continue
        for method in methods:
            if (method, path) in open_to_all:
                continue
            answer = anonymous.request(method, re.sub(r"\{\w+\}", NOT_THERE, path), json={})
            assert answer.status_code == 401, (method, path)
            assert answer.json()["error"] == "Missing X-API-Key header"
            asked += 1
    assert asked >= 27


def test_a_hackathon_from_draft_to_archive(api: TestClient) -> None:
    made = api.post(f"{V1}/hackathons", json=hackathon())
    assert made.status_code == 201
    told = made.json()
    assert told["status"] == "draft"
    assert re.match(ULID_PATTERN, told["hack_id"])
    assert told["rubric"]["dimensions"] == RUBRIC["dimensions"]
    path = f"{V1}/hackathons/{told['hack_id']}"
    assert api.get(path).json() == told
    assert api.put(path, json={"name": "Autumn Hack"}).json()["name"] == "Autumn Hack"
    assert api.get(path).json()["description"] == "Forty hours."
    assert api.post(f"{path}/activate").json()["status"] == "configured"
    assert api.post(f"{path}/activate").status_code == 409
    assert api.get(f"{path}/stats").json() == {
        "hack_id": told["hack_id"], "submission_count": 0, "verified_count": 0, "pending_count": 0, "failed_count": 0,
        "participant_count": 0, "hackathon_status": "configured"}  # fmt: skip
    assert api.delete(path).status_code == 204
    for answer in (
        api.get(path),
        api.put(path, json={}),
        api.delete(path),
        api.get(f"{path}/stats"),
        api.post(f"{path}/activate"),
    ):
        assert answer.status_code == 404
    assert api.get(f"{V1}/hackathons").json()["hackathons"] == []


IMPOSSIBLE: list[dict[str, Any]] = [
        {"name": ""}, {"name": "x" * 201}, {"name": "  "}, {"description": "x" * 2001}, {"start_date": "2026-01-02", "end_date": "2026-01-01"},
        {"start_date": "2026-01-02", "end_date": "2026-01-02"}, {"budget_limit_usd": 0}, {"budget_limit_usd": 10000.01}, {"agents_enabled": []},
        {"agents_enabled": ["bug_hunter"]}, {"agents_enabled": [*AGENTS, "judge_dredd"]}, {"ai_policy_mode": "whatever"},
        {"rubric": {**RUBRIC, "dimensions": []}}, {"rubric": {**RUBRIC, "dimensions": [RUBRIC["dimensions"][0]]}},
        {"rubric": {**RUBRIC, "dimensions": [{"name": str(n), "weight": 1 / 11, "agent": "bug_hunter"} for n in range(11)]}},
        {"rubric": {**RUBRIC, "dimensions": [{"name": "A", "weight": 1.002, "agent": "bug_hunter"}]}}, {"name": "a\x00b"},
]  # fmt: skip


def test_hackathons_that_cannot_be(api: TestClient) -> None:
    for wrong in IMPOSSIBLE:
        answer = api.post(f"{V1}/hackathons", json=hackathon(**wrong))
        assert answer.status_code == 422, wrong
        assert answer.json()["detail"]


def test_every_policy_is_taken(api: TestClient) -> None:
    for mode in ("full_vibe", "ai_assisted", "traditional", "custom", "no_ai", "ai_generated"):
        assert api.get(f"{V1}/hackathons/{make(api, ai_policy_mode=mode)}").json()["ai_policy_mode"] == mode


def test_weights_may_miss_one_by_a_thousandth(api: TestClient) -> None:
    two = [{"name": "A", "weight": 0.5005, "agent": "bug_hunter"}, {"name": "B", "weight": 0.5, "agent": "innovation"}]
    assert make(api, rubric={**RUBRIC, "dimensions": two})


def test_a_change_keeps_the_rules(api: TestClient) -> None:
    path = f"{V1}/hackathons/{make(api)}"
    assert api.put(path, json={"end_date": "2020-01-01"}).status_code == 422
    assert api.put(path, json={"agents_enabled": ["bug_hunter"]}).status_code == 422
    assert api.put(path, json={"start_date": None, "end_date": None}).json()["end_date"] is None


def test_lists_turn_pages(api: TestClient) -> None:
    made = [make(api, name=f"Hack {number}") for number in range(5)]
    seen: list[str] = []
    cursor = None
    for more in (True, True, False):
        page = api.get(f"{V1}/hackathons", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        assert page["has_more"] is more
        seen += [row["hack_id"] for row in page["hackathons"]]
        assert set(page["hackathons"][0]) == {"hack_id", "name", "status", "submission_count", "created_at"}
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == sorted(made, reverse=True)
    assert api.get(f"{V1}/hackathons", params={"limit": 0}).status_code == 422
    assert api.get(f"{V1}/hackathons", params={"limit": 101}).status_code == 422
    assert api.get(f"{V1}/hackathons", params={"cursor": "x"}).status_code == 422
    ids = submit(api, made[0], *(f"r{number}" for number in range(5)))
    first = api.get(f"{V1}/hackathons/{made[0]}/submissions", params={"limit": 3}).json()
    rest = api.get(f"{V1}/hackathons/{made[0]}/submissions", params={"limit": 3, "cursor": first["next_cursor"]}).json()
    assert [row["sub_id"] for row in [*first["submissions"], *rest["submissions"]]] == ids
    assert [row["team_name"] for row in first["submissions"]] == ["Team r0", "Team r1", "Team r2"]


def test_submissions_are_added_all_or_none(api: TestClient) -> None:
    hack_id = make(api)
    path = f"{V1}/hackathons/{hack_id}/submissions"
    rows = [{"team_name": "A_b-1 x", "repo_url": "https://github.com/Ada/one.git", "team_members": ["Ada", "Bo"]},
            {"team_name": "Two", "repo_url": "https://github.com/bo/two/"}]  # fmt: skip
    told = api.post(path, json={"submissions": rows})
    assert told.status_code == 201
    assert (told.json()["created"], told.json()["hackathon_submission_count"]) == (2, 2)
    one = told.json()["submissions"][0]
    assert {"sub_id", "team_name", "repo_url", "status", "overall_score", "rank", "total_cost_usd", "created_at", "error_message",
            "disqualification_reason"} <= set(one)  # fmt: skip
    assert (one["status"], one["overall_score"], one["rank"]) == ("pending", None, None)
    for twice in (
        {"team_name": "a_B-1 X", "repo_url": "https://github.com/x/y"},
        {"team_name": "New", "repo_url": "https://github.com/ada/ONE"},
        {"team_name": "New", "repo_url": "https://github.com/bo/two"},
    ):
        answer = api.post(
            path, json={"submissions": [{"team_name": "Fine", "repo_url": "https://github.com/fine/fine"}, twice]}
        )
        assert answer.status_code == 409, twice
    same = {"team_name": "Same", "repo_url": "https://github.com/same/same"}
    assert api.post(path, json={"submissions": [same, same]}).status_code == 409
    assert api.get(f"{V1}/hackathons/{hack_id}").json()["submission_count"] == 2
    assert api.get(f"{V1}/hackathons/{hack_id}/stats").json()["participant_count"] == 3


NO_SUBMISSIONS = [
        {"team_name": ""}, {"team_name": "x" * 51}, {"team_name": "a/b"}, {"team_name": "   "}, {"team_name": "é"}, {"repo_url": "http://github.com/a/b"},
        {"repo_url": "https://gitlab.com/a/b"}, {"repo_url": "https://github.com/a"}, {"repo_url": "https://github.com/a/b/c"}, {"repo_url": "https://github.com/../b"},
        {"repo_url": "https://github.com/a/b?x=1"}, {"repo_url": "https://user@github.com/a/b"}, {"repo_url": "file:///etc/passwd"}, {"repo_url": "https://github.com/a/b\n"},
        {"repo_url": "ext::sh -c id"}, {"repo_url": "--upload-pack=id"},
]  # fmt: skip


def test_submissions_that_cannot_be(api: TestClient) -> None:
    path = f"{V1}/hackathons/{make(api)}/submissions"
    for wrong in NO_SUBMISSIONS:
        row = {"team_name": "Team", "repo_url": "https://github.com/a/b", **wrong}
        assert api.post(path, json={"submissions": [row]}).status_code == 422, wrong
    assert api.get(path).json()["submissions"] == []


def test_how_many_submissions_at_once(api: TestClient) -> None:
    path = f"{V1}/hackathons/{make(api)}/submissions"
    rows = [{"team_name": f"T{n}", "repo_url": f"https://github.com/t/r{n}"} for n in range(501)]
    assert api.post(path, json={"submissions": []}).status_code == 422
    assert api.post(path, json={"submissions": rows}).status_code == 422
    assert api.post(path, json={"submissions": rows[:500]}).json()["created"] == 500


def test_other_git_hosts_by_setting(monkeypatch: pytest.MonkeyPatch, make_api: Any) -> None:
    monkeypatch.setenv("JUDGE_GIT_HOSTS", "github.com, git.example.org")
    client = make_api()
    client.headers["X-API-Key"] = register(client)["api_key"]
    path = f"{V1}/hackathons/{make(client)}/submissions"
    row = {"team_name": "T", "repo_url": "https://git.example.org/t/r"}
    assert client.post(path, json={"submissions": [row]}).status_code == 201


def test_a_submission_is_read_and_deleted(api: TestClient) -> None:
    hack_id = make(api)
    one, two = submit(api, hack_id, "one", "two")
    assert api.get(f"{V1}/submissions/{one}").json()["team_name"] == "Team one"
    assert api.get(f"{V1}/submissions/{one}/scorecard").status_code == 404
    assert api.get(f"{V1}/submissions/{one}/individual-scorecards").status_code == 404
    assert api.get(f"{V1}/submissions/{one}/costs").json() == {
        "sub_id": one,
        "total_cost_usd": 0.0,
        "cost_by_agent": {},
    }
    assert api.delete(f"{V1}/submissions/{one}").status_code == 204
    assert api.get(f"{V1}/submissions/{one}").status_code == 404
    assert api.delete(f"{V1}/submissions/{one}").status_code == 404
    assert [row["sub_id"] for row in api.get(f"{V1}/hackathons/{hack_id}/submissions").json()["submissions"]] == [two]
    api.post(f"{V1}/hackathons/{hack_id}/analyze")
    assert api.delete(f"{V1}/submissions/{two}").status_code == 409


def test_the_public_sees_open_hackathons_and_submits(api: TestClient) -> None:
    hack_id, ended = make(api), make(api, start_date="2020-01-01", end_date="2020-01-02")
    del api.headers["X-API-Key"]
    row = {"team_name": "Public", "repo_url": "https://github.com/team/public"}
    assert api.get(f"{V1}/public/hackathons").json() == {"hackathons": []}
    assert api.post(f"{V1}/public/hackathons/{hack_id}/submissions", json=row).status_code == 404
    key = {
        "X-API-Key": api.post(f"{V1}/organizers/login", json={"email": "ada@example.org", "password": PASSWORD}).json()[
            "api_key"
        ]
    }
    for one in (hack_id, ended):
        assert api.post(f"{V1}/hackathons/{one}/activate", headers=key).status_code == 200
    listed = api.get(f"{V1}/public/hackathons").json()["hackathons"]
    assert [one["hack_id"] for one in listed] == [hack_id]
    assert "budget_limit_usd" not in listed[0]
    assert "org_id" not in listed[0]
    assert api.post(f"{V1}/public/hackathons/{hack_id}/submissions", json=row).status_code == 201
    assert api.post(f"{V1}/public/hackathons/{hack_id}/submissions", json=row).status_code == 409
    assert api.post(f"{V1}/public/hackathons/{ended}/submissions", json=row).status_code == 409
    assert (
        api.get(f"{V1}/hackathons/{hack_id}/submissions", headers=key).json()["submissions"][0]["team_name"] == "Public"
    )


def test_nobody_sees_what_is_somebody_elses(api: TestClient) -> None:
    hack_id = make(api)
    (sub_id,) = submit(api, hack_id, "one")
    (key,) = api.get(f"{V1}/api-keys").json()["api_keys"]
    stranger = other(api)
    names = {"{hack_id}": hack_id, "{sub_id}": sub_id, "{key_id}": key["api_key_id"]}
    bodies = {"/submissions": {"submissions": [{"team_name": "X", "repo_url": "https://github.com/x/y"}]}}
    asked = 0
    for path, methods in api.get("/openapi.json").json()["paths"].items():
        if not any(name in path for name in names) or path.startswith(f"{V1}/public"):
            continue
        target = path
        for name, value in names.items():
            target = target.replace(name, value)
        for method in methods:
            body = next((told for end, told in bodies.items() if path.endswith(end)), {})
            answer = api.request(method, target, headers=stranger, json=None if method in {"get", "delete"} else body)
            assert answer.status_code == 404, (method, path, answer.text)
            asked += 1
    assert asked >= 21
    assert api.get(f"{V1}/hackathons", headers=stranger).json()["hackathons"] == []
    assert api.get(f"{V1}/hackathons/{hack_id}").json()["status"] == "draft"
    assert api.get(f"{V1}/api-keys").json()["api_keys"][0]["active"] is True


def test_an_estimate(api: TestClient) -> None:
    hack_id = make(api, budget_limit_usd=0.02)
    ids = submit(api, hack_id, "one", "two", "three")
    told = api.post(f"{V1}/hackathons/{hack_id}/analyze/estimate").json()
    assert told["estimate"]["per_submission_cost_usd"] == 0.008
    assert told["estimate"]["total_cost_usd"] == {"low": 0.0192, "expected": 0.024, "high": 0.0288}
    assert told["estimate"]["cost_by_agent"] == {
        "bug_hunter": 0.006,
        "performance": 0.006,
        "innovation": 0.009,
        "ai_detection": 0.003,
    }
    assert told["estimate"]["estimated_duration_minutes"] > 0
    assert told["budget_check"]["within_budget"] is False
    some = api.post(f"{V1}/hackathons/{hack_id}/analyze/estimate", json={"submission_ids": ids[:2]}).json()
    assert some["estimate"]["total_submissions"] == 2
    assert some["budget_check"]["within_budget"] is True


def test_an_analysis_over_budget_is_refused(api: TestClient) -> None:
    hack_id = make(api, budget_limit_usd=0.01)
    submit(api, hack_id, "one", "two")
    answer = api.post(f"{V1}/hackathons/{hack_id}/analyze")
    assert answer.status_code == 402
    told = answer.json()
    assert (told["error"], told["level"]) == ("Budget exceeded", "hackathon")
    assert "$0.016" in told["message"]
    assert told["details"] == {"estimated_cost_usd": 0.016, "limit_usd": 0.01, "spent_usd": 0.0}
    assert api.get(f"{V1}/hackathons/{hack_id}/analyze/status").status_code == 404


def test_a_tiers_budget_counts_too(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.judge import keys

    hack_id = make(api)
    submit(api, hack_id, "one", "two")
    monkeypatch.setitem(keys.TIERS, "enterprise", keys.Tier(100, 999_999, 0.01))
    answer = api.post(f"{V1}/hackathons/{hack_id}/analyze")
    assert (answer.status_code, answer.json()["level"]) == (402, "tier")


def test_an_analysis_is_queued_once(api: TestClient) -> None:
    hack_id = make(api)
    assert api.post(f"{V1}/hackathons/{hack_id}/analyze").status_code == 400
    ids = submit(api, hack_id, "one", "two")
    assert api.post(f"{V1}/hackathons/{hack_id}/analyze", json={"submission_ids": [NOT_THERE]}).status_code == 404
    told = api.post(f"{V1}/hackathons/{hack_id}/analyze", json={"submission_ids": ids[:1]})
    assert told.status_code == 202
    assert told.json()["status"] == "queued"
    assert told.json()["total_submissions"] == 1
    busy = api.post(f"{V1}/hackathons/{hack_id}/analyze")
    assert (busy.status_code, busy.json()["job_id"]) == (409, told.json()["job_id"])
    assert api.put(f"{V1}/hackathons/{hack_id}", json={"rubric": RUBRIC}).status_code == 409
    state = api.get(f"{V1}/hackathons/{hack_id}/analyze/status").json()
    assert state["job_id"] == told.json()["job_id"]
    assert state["progress"] == {
        "total_submissions": 1,
        "completed": 0,
        "failed": 0,
        "remaining": 1,
        "percent_complete": 0.0,
    }
    assert (state["current_submission"], state["cost_so_far"], state["errors"]) == (None, 0.0, [])
    assert api.get(f"{V1}/hackathons/{hack_id}/stats").json()["hackathon_status"] == "analyzing"
    assert api.get(f"{V1}/hackathons/{hack_id}/analyze/status", params={"job_id": NOT_THERE}).status_code == 404


def test_archiving_cancels_the_analysis(api: TestClient, repos: Any) -> None:
    hack_id = make(api)
    submit(api, hack_id, "one", "two")
    api.post(f"{V1}/hackathons/{hack_id}/analyze")
    assert api.delete(f"{V1}/hackathons/{hack_id}").status_code == 204
    assert work_off() == 0
    with database.session(read_only=True) as db:
        assert db.scalars(select(Job.status)).all() == ["cancelled"]
        assert set(db.scalars(select(Task.state))) == {"cancelled"}


def test_a_whole_analysis(api: TestClient, repos: Any) -> None:
    good(repos / "team" / "one")
    hack_id = make(api)
    one, none = submit(api, hack_id, "one", "none", members=["Ada", "Bo"])
    api.post(f"{V1}/hackathons/{hack_id}/activate")
    assert api.post(f"{V1}/hackathons/{hack_id}/analyze").status_code == 202
    assert work_off() == 2
    state = api.get(f"{V1}/hackathons/{hack_id}/analyze/status").json()
    assert state["status"] == "completed"
    assert state["progress"] == {
        "total_submissions": 2,
        "completed": 1,
        "failed": 1,
        "remaining": 0,
        "percent_complete": 100.0,
    }
    assert state["errors"] == [
        {"sub_id": none, "team_name": "Team none", "error": "The repository is not there, or it is not public."}
    ]
    assert api.get(f"{V1}/submissions/{none}").json()["error_message"] == state["errors"][0]["error"]
    stats = api.get(f"{V1}/hackathons/{hack_id}/stats").json()
    assert (stats["verified_count"], stats["pending_count"], stats["failed_count"], stats["hackathon_status"]) == (
        1,
        0,
        1,
        "completed",
    )

    told = api.get(f"{V1}/submissions/{one}/scorecard").json()
    assert told["rank"] == 1
    assert set(told["agents"]) == set(AGENTS)
    assert told["team"]["grade"] == "A"
    row = api.get(f"{V1}/submissions/{one}").json()
    assert (row["status"], row["overall_score"], row["total_cost_usd"], row["rank"]) == (
        "completed",
        told["overall_score"],
        0.008,
        1,
    )
    people = api.get(f"{V1}/submissions/{one}/individual-scorecards").json()
    assert [person["name"] for person in people["individuals"]] == ["Ada", "Bo"]
    assert api.get(f"{V1}/submissions/{one}/costs").json()["total_cost_usd"] == 0.008
    costs = api.get(f"{V1}/hackathons/{hack_id}/costs").json()
    assert (costs["total_cost_usd"], costs["submissions_analyzed"], costs["budget_remaining_usd"]) == (0.008, 1, 49.992)
    assert api.get(f"{V1}/organizers/me").json()["spent_usd"] == 0.008

    board = api.get(f"{V1}/hackathons/{hack_id}/leaderboard").json()
    assert [line["team_name"] for line in board["leaderboard"]] == ["Team one"]
    assert sum(board["leaderboard"][0]["dimension_scores"].values()) == pytest.approx(told["overall_score"], abs=0.03)
    seen = api.get(f"{V1}/hackathons/{hack_id}/intelligence").json()
    assert seen["top_performers"][0]["team_name"] == "Team one"
    assert seen["hiring_intelligence"]["backend_candidates"][0]["name"] == "Ada"
    assert {"Python", "FastAPI"} <= {one["name"] for one in seen["technology_trends"]["most_used"]}
    assert {"name", "team_name", "skills", "hiring_score"} <= set(seen["hiring_intelligence"]["backend_candidates"][0])

    assert api.post(f"{V1}/hackathons/{hack_id}/analyze", json={"submission_ids": [one]}).status_code == 400
    again = api.post(f"{V1}/hackathons/{hack_id}/analyze", json={"submission_ids": [one], "force_reanalyze": True})
    assert again.status_code == 202
    assert work_off() == 1
    assert api.get(f"{V1}/submissions/{one}/scorecard").json()["overall_score"] == told["overall_score"]
    assert api.get(f"{V1}/submissions/{one}").json()["total_cost_usd"] == 0.016


def test_an_empty_leaderboard_is_no_error(api: TestClient) -> None:
    hack_id = make(api)
    board = api.get(f"{V1}/hackathons/{hack_id}/leaderboard")
    assert board.status_code == 200
    assert board.json()["leaderboard"] == []
    assert board.json()["statistics"]["mean_score"] is None
    assert board.json()["statistics"]["score_distribution"] == {
        "90-100": 0,
        "80-89": 0,
        "70-79": 0,
        "60-69": 0,
        "0-59": 0,
    }
    seen = api.get(f"{V1}/hackathons/{hack_id}/intelligence").json()
    assert seen["top_performers"] == []
    assert set(seen["hiring_intelligence"]) == {
        "backend_candidates", "frontend_candidates", "devops_candidates", "full_stack_candidates", "must_interview"}  # fmt: skip
    assert set(seen["technology_trends"]) == {"most_used", "emerging", "popular_stacks"}
    assert (
        seen["must_interview"]
        == seen["sponsor_api_usage"]
        == seen["common_issues"]
        == seen["prize_recommendations"]
        == []
    )


def test_ranks_and_statistics_against_another_implementation(api: TestClient) -> None:
    import numpy as np
    from scipy.stats import rankdata

    hack_id = make(api)
    scores = [91.0, 80.0, 80.0, 79.99, 60.0, 59.99, 12.5, 100.0]
    ids = submit(api, hack_id, *(f"r{number}" for number in range(len(scores))))
    for sub_id, score in zip(ids, scores, strict=True):
        scored(sub_id, score)
    board = api.get(f"{V1}/hackathons/{hack_id}/leaderboard").json()
    told = {line["sub_id"]: line["rank"] for line in board["leaderboard"]}
    assert [told[one] for one in ids] == [int(r) for r in rankdata([-score for score in scores], method="min")]
    stats = board["statistics"]
    assert stats["mean_score"] == pytest.approx(np.mean(scores), abs=0.01)
    assert stats["median_score"] == pytest.approx(np.median(scores), abs=0.01)
    assert stats["std_dev"] == pytest.approx(np.std(scores), abs=0.01)
    assert (stats["highest_score"], stats["lowest_score"]) == (100.0, 12.5)
    assert stats["score_distribution"] == {"90-100": 2, "80-89": 2, "70-79": 1, "60-69": 1, "0-59": 2}
    listed = api.get(f"{V1}/hackathons/{hack_id}/submissions").json()["submissions"]
    assert [row["rank"] for row in listed] == [told[one] for one in ids]


def test_usage_by_day_and_as_csv(api: TestClient) -> None:
    make(api)
    assert api.get(f"{V1}/hackathons/{NOT_THERE}").status_code == 404
    for _ in range(3):
        told = api.get(f"{V1}/usage/summary").json()
    (day,) = told["daily_breakdown"]
    assert (day["requests"], day["successful"], day["failed"]) == (2, 1, 1)
    assert told["daily_usage"] == [
        {"date": day["date"], "request_count": 2, "successful_requests": 1, "total_cost_usd": 0.0}
    ]
    export = api.get(f"{V1}/usage/export")
    assert export.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(export.text)))
    assert rows == [{"date": day["date"], "requests": "2", "successful": "1", "failed": "1", "cost_usd": "0.000000"}]
    assert (
        api.get(f"{V1}/usage/summary", params={"start_date": "2026-02-02", "end_date": "2026-02-01"}).status_code == 422
    )
    assert api.get(f"{V1}/usage/summary", params={"start_date": "1990-01-01"}).status_code == 422
    assert api.get(f"{V1}/usage/summary", params={"start_date": "yesterday"}).status_code == 422


def test_reading_status_is_never_billed(api: TestClient) -> None:
    hack_id = make(api)
    submit(api, hack_id, "one")
    api.post(f"{V1}/hackathons/{hack_id}/analyze")
    before = api.get(f"{V1}/usage/summary").json()["total_requests"]
    for _ in range(5):
        assert api.get(f"{V1}/hackathons/{hack_id}/analyze/status").status_code == 200
        assert api.get(f"{V1}/hackathons/{hack_id}/stats").status_code == 200
    assert api.get(f"{V1}/usage/summary").json()["total_requests"] == before == 3


def test_every_error_says_what_and_has_an_id(api: TestClient) -> None:
    answer = api.get(f"{V1}/hackathons/{NOT_THERE}")
    assert answer.json()["detail"] == f"There is no hackathon {NOT_THERE}."
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    for name in ("nothing", "x" * 64, "%00", "é"):
        assert api.get(f"{V1}/hackathons/{name}").status_code == 404
        assert api.get(f"{V1}/submissions/{name}").status_code == 404


def test_the_queue_is_measured(api: TestClient) -> None:
    from app.judge.api import measure_queue

    def gauge(name: str) -> float:
        return float(re.search(rf"^{name}(?:{{.*}})? (\S+)$", api.get("/metrics").text, re.MULTILINE)[1])  # type: ignore[index]

    hack_id = make(api)
    submit(api, hack_id, "one")
    measure_queue()
    assert gauge("JudgeQueueAge") == 0
    api.post(f"{V1}/hackathons/{hack_id}/analyze")
    with database.session() as db:
        db.execute(update(Task).values(created_at=time.time() - 1000))
    measure_queue()
    assert gauge("JudgeQueueAge") == pytest.approx(1000, abs=30)
    assert work_off() == 1
    measure_queue()
    assert (gauge("JudgeQueueAge"), gauge("JudgeFailed")) == (0, 1)
    assert RUNNING == ("queued", "running")
