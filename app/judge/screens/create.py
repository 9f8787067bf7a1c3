"""Create a hackathon."""

from datetime import UTC, datetime, timedelta

import streamlit as st

from app.core.client import ApiError
from app.judge.screens import common

AGENTS = {
    "bug_hunter": ("Code quality", "Bugs, security, tests, error handling, dependencies."),
    "performance": ("Engineering", "Architecture, database, API, scalability, resources."),
    "innovation": ("Innovation", "Novelty, problem solving, elegance, README, demo."),
    "ai_detection": ("Own work", "Do the commits look like people's work?"),
}
POLICIES = {
    "ai_assisted": "Assisted by AI: some signs count",
    "full_vibe": "Full vibe: AI may do everything",
    "traditional": "Traditional: no AI",
    "custom": "Custom: you say how much signs of AI count",
}
STEP = 0.05


def page() -> None:
    """The page."""
    common.heading("Create hackathon", "A draft at first; activate it under Manage when teams may submit.")
    made = st.session_state.pop("created", None)
    if made:
        st.success(
            f"**{common.plain(made)}** is a draft now. Activate it under Manage.", icon=":material/check_circle:"
        )
    today = datetime.now(UTC).date()
    left, right = st.columns(2, gap="large")
    with left:
        name = st.text_input("Name", max_chars=200, key="create-name")
        description = st.text_area("Description", max_chars=2000, key="create-description")
        first, last = st.columns(2)
        start = first.date_input("Start", today, key="create-start")
        end = last.date_input("End", today + timedelta(days=2), key="create-end")
        budget = st.number_input("Budget in US dollars", 0.01, 10000.0, 50.0, 1.0, key="create-budget")
    with right:
        chosen = st.multiselect(
            "Agents", list(AGENTS), list(AGENTS), format_func=lambda one: AGENTS[one][0], key="create-agents"
        )
        weights = {}
        for agent in chosen:
            title, about = AGENTS[agent]
            start_weight = 0.25 if len(chosen) == 4 else round(1 / len(chosen) / STEP) * STEP
            weights[agent] = st.slider(
                f"Weight of {title.lower()}",
                0.0,
                1.0,
                start_weight,
                STEP,
                help=about,
                key=f"create-weight-{agent}-{len(chosen)}",
            )
        total = sum(weights.values())
        good = abs(total - 1) <= 0.01
        st.caption(f"The weights sum to {total:.2f}{'' if good else '; they must sum to 1.00'}.")
        policy = st.selectbox("AI policy", list(POLICIES), format_func=lambda one: POLICIES[one], key="create-policy")
        penalty = (
            st.slider("How much signs of AI count", 0.0, 1.0, 0.7, 0.1, key="create-penalty")
            if policy == "custom"
            else None
        )
    if not st.button("Create", type="primary", icon=":material/add_circle:"):
        return
    if not name.strip() or not chosen or not good or start > end:
        st.warning(
            "Give a name, at least one agent, weights that sum to 1.00, and an end after the start.",
            icon=":material/edit:",
        )
        return
    dimensions = [
        # the API asks for weights that sum to 1 more exactly than sliders do
        {"name": AGENTS[agent][0], "weight": round(weight / total, 6), "agent": agent, "description": AGENTS[agent][1]}
        for agent, weight in weights.items()
    ]
    body = {
        "name": name,
        "description": description,
        "start_date": f"{start.isoformat()}T00:00:00Z",
        "end_date": f"{end.isoformat()}T23:59:59Z",
        "rubric": {"name": "Standard", "version": "1.0", "max_score": 100, "dimensions": dimensions},
        "agents_enabled": chosen,
        "ai_policy_mode": policy,
        "ai_policy_config": {} if penalty is None else {"penalty": penalty},
        "budget_limit_usd": budget,
    }
    try:
        told = common.change("POST", "/hackathons", json=body)
    except ApiError as error:
        common.show_problem(error)
        return
    st.session_state.update(created=told["name"], hack_kept=told["hack_id"])
    st.rerun()
