"""What a repository is, in numbers, without any judgement."""

import re
from collections import Counter
from typing import Any, Final

from app.judge.languages import is_ci, is_test
from app.judge.repository import Repository
from app.judge.strategy import readme_of
from app.judge.team import Contributor
from app.judge.technology import is_manifest, sponsors, technologies

MOST_TEXT: Final = 3 * 1024**2
_DOCKER: Final = re.compile(r"(^|/)(Dockerfile[^/]*|[^/]+\.Dockerfile|Containerfile)$")


def languages(repository: Repository) -> dict[str, float]:
    """Share of each language of all lines of source, 0 to 1, largest first."""
    lines: Counter[str] = Counter()
    for file in repository.texts:
        if file.language:
            lines[file.language] += file.lines
    total = sum(lines.values())
    return {name: round(number / total, 4) for name, number in lines.most_common()} if total else {}


def texts_for_technology(repository: Repository) -> tuple[str, str]:
    """The code and the manifests that technologies are looked for in, bounded."""
    code, manifests, size = [], [], 0
    for file in repository.texts:
        size += len(file.text or "")
        if size > MOST_TEXT:
            break
        if is_manifest(file.path):
            manifests.append(file.text or "")
        elif file.language:
            code.append(file.text or "")
    return "\n".join(code), "\n".join(manifests)


def facts(repository: Repository, people: tuple[Contributor, ...], *, clone_seconds: float) -> dict[str, Any]:
    """The facts as the API gives them. Hours are between the first and the last commit."""
    commits = repository.commits
    code, manifests = texts_for_technology(repository)
    times = [one.at.timestamp() for one in commits]
    return {
        "commit_count": len(commits),
        "bot_commit_count": repository.bot_commits,
        "history_truncated": repository.truncated,
        "default_branch": repository.branch,
        "branch_count": repository.branches,
        "contributor_count": len(people),
        "contributors": [
            {
                "name": one.name,
                "commits": one.authored,
                "share": round(one.share, 4),
                "lines_added": one.added,
                "lines_deleted": one.deleted,
            }
            for one in people
        ],
        "file_count": len(repository.files),
        "total_bytes": sum(file.size for file in repository.files),
        "lines_of_code": sum(file.lines for file in repository.texts if file.language),
        "languages": languages(repository),
        "has_tests": any(is_test(file.path) for file in repository.files),
        "has_ci": any(is_ci(file.path) for file in repository.files),
        "has_dockerfile": any(_DOCKER.search(file.path) for file in repository.files),
        "has_readme": readme_of(repository) is not None,
        "first_commit_at": min(commits, key=lambda one: one.at).at.isoformat() if commits else None,
        "last_commit_at": max(commits, key=lambda one: one.at).at.isoformat() if commits else None,
        "duration_hours": round((max(times) - min(times)) / 3600, 2) if times else 0.0,
        "technologies": technologies(code, manifests),
        "services": sponsors(f"{code}\n{manifests}"),
        "links_not_followed": repository.links,
        "submodules_not_fetched": repository.submodules,
        "paths_left_out": repository.skipped,
        "clone_seconds": round(clone_seconds, 2),
    }
