"""Results: search, sort, pages, a CSV, and the scorecard of one submission in four tabs."""

import csv
import io
from typing import Any

import streamlit as st

from app.core import panels
from app.judge.screens import common, figures

_SORTS = {
    "Rank": ("rank", False),
    "Score, lowest first": ("overall_score", False),
    "Team": ("team_name", False),
    "Confidence": ("confidence", True),
}


def page() -> None:
    """The page."""
    common.heading("Results", "Who is ahead, and why.")
    hackathon = common.choose_hackathon()
    with common.problems_shown():
        board = common.get(f"/hackathons/{hackathon['hack_id']}/leaderboard")
    rows = board["leaderboard"]
    if not rows:
        panels.empty("Nothing has been judged yet. Start on the live dashboard.", "leaderboard")
        return
    _statistics(board["statistics"])
    left, right = st.columns([3, 2])
    wanted = left.text_input("Search", placeholder="a team's name").strip().lower()
    sort, down = _SORTS[right.selectbox("Sort by", list(_SORTS))]
    found = [row for row in rows if wanted in row["team_name"].lower()]
    found.sort(key=lambda row: row[sort].lower() if isinstance(row[sort], str) else row[sort], reverse=down)
    if not found:
        panels.empty(f"No team is called like that; {len(rows)} are judged.", "search_off")
        return
    dimensions = list(rows[0]["dimension_scores"])
    common.table(
        ("Rank", "Team", "Score", "Verdict", "Confidence", *dimensions),
        [
            (
                str(row["rank"]),
                row["team_name"],
                f"{row['overall_score']:.2f}",
                common.recommended(row["recommendation"]),
                f"{row['confidence']:.0%}",
                *(f"{row['dimension_scores'].get(name, 0):.2f}" for name in dimensions),
            )
            for row in common.pages(found, "results")
        ],
    )
    st.download_button(
        "Download as CSV",
        _csv(found, dimensions),
        "results.csv",
        "text/csv",
        icon=":material/download:",
        on_click="ignore",
    )
    names = {row["sub_id"]: f"{row['rank']}. {row['team_name']}" for row in found}
    st.subheader("Scorecard", anchor=False)
    chosen = st.selectbox("Submission", list(names), format_func=lambda one: names[one])
    _scorecard(chosen)


def _csv(rows: list[dict[str, Any]], dimensions: list[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("rank", "team_name", "overall_score", "recommendation", "confidence", *dimensions))
    for row in rows:
        scores = [row["dimension_scores"].get(name, "") for name in dimensions]
        writer.writerow(
            (row["rank"], row["team_name"], row["overall_score"], row["recommendation"], row["confidence"], *scores)
        )
    return out.getvalue()


def _statistics(told: dict[str, Any]) -> None:
    tiles = (("Mean", "mean_score"), ("Median", "median_score"), ("Highest", "highest_score"), ("Deviation", "std_dev"))
    for column, (name, key) in zip(st.columns(4), tiles, strict=True):
        column.metric(name, f"{told[key]:.1f}", border=True)
    bands = told["score_distribution"]
    with st.expander("How the scores are spread", icon=":material/bar_chart:"):
        figures.plot(figures.columns(list(bands)[::-1], list(bands.values())[::-1], "submissions"), "spread")


def _scorecard(sub_id: str) -> None:
    with common.problems_shown():
        card = common.get(f"/submissions/{sub_id}/scorecard")
    overview, agents, repository, team = st.tabs(["Overview", "Agents", "Repository", "Team"])
    with overview:
        _overview(card)
    with agents:
        _agents(card)
    with repository:
        _repository(card)
    with team:
        _team(card)


def _overview(card: dict[str, Any]) -> None:
    left, right = st.columns([1, 2], vertical_alignment="center")
    left.metric("Overall score of 100", f"{card['overall_score']:.2f}")
    with right:
        common.badge(card["recommendation"])
        st.caption(
            f"Confidence {card['confidence']:.0%} · judged {common.when(card['analyzed_at'])} · {card['repo_url']}"
        )
    parts = card["dimension_scores"]
    names = [f"{name} ({part['weight']:.0%})" for name, part in parts.items()]
    figures.plot(figures.bars(names, [part["weighted"] for part in parts.values()], "points"), "dimensions")


def _agents(card: dict[str, Any]) -> None:
    for name, agent in card["agents"].items():
        with st.expander(f"{common.words(name)}: {agent['overall_score']:.1f} of 10", expanded=name == "bug_hunter"):
            st.markdown(agent["summary"])
            scores = agent["scores"]
            figures.plot(
                figures.bars([common.words(one) for one in scores], list(scores.values()), "of 10"), f"agent-{name}"
            )
            for sentence in agent["strengths"]:
                st.markdown(f":material/thumb_up: {common.plain(sentence)}")
            for sentence in agent["improvements"]:
                st.markdown(f":material/build: {common.plain(sentence)}")
            if agent["evidence"]:
                common.table(
                    ("Finding", "Where", "Weight"),
                    [
                        (
                            one["finding"],
                            f"{one['file']}:{one['line']}" if one["line"] else one["file"],
                            one["severity"],
                        )
                        for one in agent["evidence"]
                    ],
                )


def _repository(card: dict[str, Any]) -> None:
    facts, static = card["repository"], card["static_analysis"]
    tiles = (
        ("Commits", facts["commit_count"]),
        ("Branches", facts["branch_count"]),
        ("Contributors", facts["contributor_count"]),
        ("Hours", f"{facts['duration_hours']:.1f}"),
    )
    for column, (name, value) in zip(st.columns(4), tiles, strict=True):
        column.metric(name, value)
    there = [name for name in ("tests", "ci", "dockerfile", "readme") if facts[f"has_{name}"]]
    st.markdown(
        f"Has: {', '.join(there) or 'neither tests, CI, a Dockerfile nor a README'}. Strategy: {card['strategy']['test_strategy']}."
    )
    if facts["languages"]:
        shares = facts["languages"]
        figures.plot(
            figures.bars(list(shares), [round(100 * share, 1) for share in shares.values()], "% of the lines"),
            "languages",
        )
    if static["tools_failed"]:
        failed = ", ".join(f"{one['tool']} ({one['reason']})" for one in static["tools_failed"])
        st.caption(f"Tools that did not run: {failed}")
    if static["findings"]:
        common.table(
            ("Tool", "Finding", "Where", "Weight"),
            [
                (one["tool"], f"{one['rule']}: {one['message']}", f"{one['file']}:{one['line']}", one["severity"])
                for one in common.pages(static["findings"], "findings", 20)
            ],
        )
    else:
        st.caption("The static tools found nothing.")


def _team(card: dict[str, Any]) -> None:
    team = card["team"]
    left, right = st.columns([1, 3], vertical_alignment="center")
    left.metric("Grade", team["grade"])
    parts = ", ".join(f"{common.words(name).lower()} {points}" for name, points in team["grade_parts"].items())
    right.caption(f"{team['points']} of 100 points: {parts}")
    for flag in team["red_flags"]:
        st.markdown(
            f":material/flag: **{common.words(flag['kind'])}** ({flag['severity']}): {common.plain(flag['sentence'])}"
        )
    common.table(
        ("Name", "Role", "Level", "Commits", "Share", "Lines", "Hiring score"),
        [
            (
                one["name"],
                common.words(one["role"]),
                one["seniority"],
                str(one["commits"]),
                f"{one['share']:.0%}",
                f"+{one['lines_added']} -{one['lines_deleted']}",
                f"{one['hiring_score']:.0f}",
            )
            for one in team["individuals"]
        ],
    )
