"""Innovation: novelty, problem solving, elegance, README, demo."""

import ast
import re
import warnings
from typing import Final

from app.judge.agents.subject import SUB_SCORES, Found, Subject, Verdict, bounded
from app.judge.facts import texts_for_technology
from app.judge.technology import NOVEL, technologies

_HEADING: Final = re.compile(r"^(#{1,4}\s|[=\-]{4,}$)", re.MULTILINE)
_PARTS: Final = {
    "how to install": r"\binstall|\bset ?up\b|getting started|prerequisites",
    "how to use": r"\busage\b|how to use|\bexamples?\b|quick ?start",
    "how it is built": r"architecture|how it works|\bdesign\b|tech(nology)? stack|built with",
    "what it solves": r"\bproblem\b|inspiration|motivation|\bwhy\b|what it does|about",
    "a licence": r"licen[sc]e",
}
_PICTURE: Final = re.compile(r"!\[[^\]]*\]\(|<img\b")
_CODE_BLOCK: Final = re.compile(r"^```|^\s{4}\$ ", re.MULTILINE)
_LINK: Final = re.compile(r"https?://(?!github\.com|img\.shields\.io)[\w.-]+", re.IGNORECASE)
_DEMO: Final = re.compile(r"\b(demo|live|try it|screenshots?|video)\b", re.IGNORECASE)
_RUN: Final = re.compile(
    r"(^|/)(docker-compose[^/]*|compose\.ya?ml|Dockerfile|Makefile|justfile|Procfile|run\.sh|start\.sh|vercel\.json|netlify\.toml|fly\.toml)$"
)
_SEED: Final = re.compile(r"(^|/)(examples?|samples?|fixtures?|seeds?|demo)(/|\.\w+$)", re.IGNORECASE)
_FACES: Final = frozenset({"HTML", "TypeScript", "JavaScript", "Vue", "Svelte", "Dart", "Swift"})
_ALGORITHM: Final = re.compile(
    r"\b(heapq|deque|dijkstra|a_star|bfs|dfs|dynamic programming|memo(ize)?|gradient|embedding|cosine|simulat\w+|"
    r"monte.?carlo|optimi[sz]\w+|cluster\w*|graph|parser|tokeni[sz]er|scheduler|state machine|backtrack\w*|binary search)\b",
    re.IGNORECASE,
)


def judge(subject: Subject) -> Verdict:
    """Judge the idea as far as a repository shows it. Typed and documented shares are of Python's functions."""
    if not subject.code_lines:
        scores = dict.fromkeys(SUB_SCORES["innovation"], 0.0)
        scores["readme_quality"] = bounded(_readme(subject)[0])
        return Verdict("innovation", scores, 0.8, improvements=["There is no source code to judge."])
    used = technologies(*texts_for_technology(subject.repository))
    languages = {file.language for file in subject.code}
    novelty = (
        2 + min(3.0, 0.5 * len(used)) + min(4.0, 1.6 * len(NOVEL & set(used))) + min(1.0, 0.5 * (len(languages) - 1))
    )
    algorithms = subject.scan(_ALGORITHM, most=30, code_only=True)
    kinds = {place.text.lower() for place in algorithms}
    creative = 3 + min(3.5, 0.7 * len(kinds)) + 1.5 * subject.strategy.tradeoffs + min(2.0, subject.code_lines / 1500)
    typed, documented, functions = _python(subject)
    complexity = subject.report.functions
    mean = sum(one.complexity for one in complexity) / len(complexity) if complexity else 4.0
    elegance = 5 + max(-3.0, min(2.0, 5 - mean))
    elegance += 1.5 * typed + 1.5 * documented if functions else 0.5
    readme, missing = _readme(subject)
    text = subject.readme_text
    runs = subject.has_file(_RUN)
    linked = bool(_DEMO.search(text)) and bool(_LINK.search(text))
    has_face = bool(languages & _FACES) or not {"Streamlit", "Gradio"}.isdisjoint(used)
    demo = 2 + 2.5 * linked + 1.5 * bool(_PICTURE.search(text)) + 1.5 * (runs is not None) + 1.5 * has_face
    demo += 1.0 * (subject.has_file(_SEED) is not None)
    evidence = [
        *(
            Found(f"Works with {place.text.lower()}", place.file, place.line, "info", "pattern")
            for place in algorithms[:3]
        ),
        *([Found("The README", subject.readme.path, None, "info", "readme")] if subject.readme else []),
        *([Found("It can be started with this", runs.path, None, "info", "files")] if runs else []),
    ]
    strengths = [s for s, good in (
        (f"Uses {', '.join(sorted(NOVEL & set(used))[:4])}", bool(NOVEL & set(used))),
        ("The README explains the project", readme >= 7),
        (f"{typed:.0%} of the functions are typed", functions >= 5 and typed >= 0.6),
        ("Trade-offs are written down", subject.strategy.tradeoffs),
    ) if good]  # fmt: skip
    improvements = [s for s, bad in (
        ("Write a README", not text.strip()),
        (f"The README does not say {', '.join(missing)}", bool(text.strip()) and bool(missing)),
        ("Give one command that starts it", runs is None),
        ("Show it: a picture or a link to a demo", not _PICTURE.search(text) and not _DEMO.search(text)),
    ) if bad]  # fmt: skip
    confidence = 0.5 + 0.2 * (len(text) > 500) + 0.15 * bool(functions) + 0.1 * bool(used)
    scores = {
        "technical_novelty": bounded(novelty),
        "creative_problem_solving": bounded(creative),
        "architecture_elegance": bounded(elegance),
        "readme_quality": bounded(readme),
        "demo_potential": bounded(demo),
    }
    return Verdict("innovation", scores, round(confidence, 2), strengths, improvements, evidence)


def _readme(subject: Subject) -> tuple[float, list[str]]:
    """Points of the README, and what it does not say."""
    text = subject.readme_text
    if not text.strip():
        return 0.0, list(_PARTS)
    said = [name for name, words in _PARTS.items() if re.search(words, text, re.IGNORECASE)]
    points = (
        min(2.0, len(text) / 750) + min(1.5, 0.3 * len(_HEADING.findall(text))) + 1.0 * len(said)
        + 0.75 * bool(_CODE_BLOCK.search(text)) + 0.75 * bool(_PICTURE.search(text))
    )  # fmt: skip
    return points, [name for name in _PARTS if name not in said]


def _python(subject: Subject) -> tuple[float, float, int]:
    """Share of Python's functions with annotations, share with docstrings, and how many there are. Code is parsed, never run."""
    typed = documented = total = 0
    for file in subject.code:
        if file.language != "Python" or len(file.text or "") > 200_000:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(file.text or "")
            nodes = list(ast.walk(tree))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in nodes:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                total += 1
                documented += ast.get_docstring(node, clean=False) is not None
                own = [one for one in node.args.args if one.arg not in {"self", "cls"}]
                typed += node.returns is not None or (bool(own) and all(one.annotation for one in own))
    return (typed / total, documented / total, total) if total else (0.0, 0.0, 0)
