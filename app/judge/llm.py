"""The place where an LLM can be plugged in. Off by default: rules judge.

`JUDGE_AGENT=package.module:name` names something that has this interface. It is asked after the rules, with what they found, and may
answer with another verdict; scores are bounded, and evidence whose file or line does not exist is dropped, whoever gave it. When it
fails, the rules' verdict stands.
"""

import importlib
import logging
from typing import Protocol, cast

from app.judge.agents.subject import Subject, Verdict

log = logging.getLogger(__name__)


class LlmAgent(Protocol):
    """An LLM that looks at a verdict of the rules."""

    def review(self, subject: Subject, verdict: Verdict) -> Verdict:
        """The verdict that counts."""


def load(name: str) -> LlmAgent | None:
    """The agent that the setting names; None when it names none. Raises ValueError."""
    if not name:
        return None
    module, _, attribute = name.partition(":")
    try:
        return cast("LlmAgent", getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"JUDGE_AGENT={name} cannot be loaded; expected module:attribute") from error


def reviewed(agent: LlmAgent | None, subject: Subject, verdict: Verdict) -> Verdict:
    """The agent's verdict, or the rules' when there is no agent, it fails, or it leaves the frame."""
    if agent is None:
        return verdict
    try:
        told = agent.review(subject, verdict)
        good = told.agent == verdict.agent and set(told.scores) == set(verdict.scores)
    except Exception:  # whatever somebody's agent does, the submission is judged
        log.exception("the LLM agent failed; the rules' verdict stands", extra={"event": "agent_failed"})
        return verdict
    return told if good else verdict
