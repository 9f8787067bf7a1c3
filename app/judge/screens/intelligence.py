"""Intelligence: who to interview, what the teams built with, whose APIs they used."""

import streamlit as st

from app.core import panels
from app.judge.screens import common, figures


def page() -> None:
    """The page."""
    common.heading("Intelligence", "What the hackathon says as a whole.")
    hackathon = common.choose_hackathon()
    with common.problems_shown():
        told = common.get(f"/hackathons/{hackathon['hack_id']}/intelligence")
    if not told["top_performers"]:
        panels.empty("Nothing has been judged yet. Start on the live dashboard.", "insights")
        return
    st.subheader("Must interview", anchor=False)
    if told["must_interview"]:
        common.table(
            ("Name", "Team", "Role", "Level", "Skills", "Hiring score"),
            [
                (
                    one["name"],
                    one["team_name"],
                    common.words(one.get("role", "")),
                    one.get("seniority", ""),
                    ", ".join(one["skills"]),
                    f"{one['hiring_score']:.0f}",
                )
                for one in told["must_interview"]
            ],
        )
    else:
        st.caption("Nobody stands out by rules alone.")
    st.subheader("Technology trends", anchor=False)
    used = told["technology_trends"]["most_used"]
    if used:
        figures.plot(
            figures.bars([one["name"] for one in used], [one["count"] for one in used], "submissions"), "trends"
        )
    if told["technology_trends"]["emerging"]:
        st.caption(f"Emerging: {', '.join(one['name'] for one in told['technology_trends']['emerging'])}")
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Sponsor APIs", anchor=False)
        if told["sponsor_api_usage"]:
            common.table(
                ("API", "Teams", "Who"),
                [(one["sponsor"], str(one["count"]), ", ".join(one["teams"][:6])) for one in told["sponsor_api_usage"]],
            )
        else:
            st.caption("No submission uses an API that is known here.")
        st.subheader("Common issues", anchor=False)
        common.table(
            ("Issue", "Teams", "For example"),
            [(one["issue"], f"{one['count']} ({one['share']:.0%})", one["example"]) for one in told["common_issues"]],
        )
    with right:
        st.subheader("Prizes", anchor=False)
        common.table(
            ("Prize", "Team", "Because"),
            [(one["prize"], one["team_name"], one["reason"]) for one in told["prize_recommendations"]],
        )
