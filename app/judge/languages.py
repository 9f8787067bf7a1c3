"""What a path says about a file: its language, its part of a product, whether it is a test, and what is not the team's own."""

import re
from typing import Final

_BY_SUFFIX: Final = {
    "Python": "py pyi",
    "JavaScript": "js jsx mjs cjs",
    "TypeScript": "ts tsx mts",
    "Java": "java",
    "Kotlin": "kt kts",
    "Go": "go",
    "Rust": "rs",
    "Ruby": "rb",
    "PHP": "php",
    "C": "c h",
    "C++": "cc cpp cxx hpp",
    "C#": "cs",
    "Swift": "swift",
    "Dart": "dart",
    "Scala": "scala",
    "Elixir": "ex exs",
    "Shell": "sh bash zsh",
    "SQL": "sql",
    "HTML": "html htm",
    "CSS": "css scss sass less",
    "Vue": "vue",
    "Svelte": "svelte",
    "Solidity": "sol",
    "R": "r",
    "Julia": "jl",
    "Lua": "lua",
    "HCL": "tf hcl",
    "Jupyter Notebook": "ipynb",
}
_LANGUAGE: Final = {suffix: name for name, suffixes in _BY_SUFFIX.items() for suffix in suffixes.split()}
_BACKEND: Final = frozenset("Python Java Kotlin Go Rust Ruby PHP C C++ C# Scala Elixir SQL Solidity".split())
_FRONTEND: Final = frozenset("JavaScript TypeScript HTML CSS Vue Svelte Swift Dart".split())
_DEVOPS: Final = re.compile(
    r"(^|/)(dockerfile[^/]*|docker-compose[^/]*|compose\.ya?ml|\.dockerignore|makefile|jenkinsfile|procfile|vagrantfile|ansible\.cfg|"
    r"\.gitlab-ci\.yml|\.travis\.yml|azure-pipelines\.yml|serverless\.yml|fly\.toml|vercel\.json|netlify\.toml)$"
    r"|(^|/)(\.github/workflows|\.circleci|k8s|kubernetes|helm|charts|terraform|ansible|playbooks|infra|deploy)/|\.tf$",
    re.IGNORECASE,
)
_TEST: Final = re.compile(
    r"(^|/)(tests?|__tests__|specs?|e2e|cypress|playwright)/|(^|/)test_[^/]+\.\w+$|(_test|\.test|\.spec|_spec|\.cy|Test|Tests)\.\w+$"
)
_CI: Final = re.compile(
    r"^(\.github/workflows/[^/]+\.ya?ml|\.gitlab-ci\.yml|\.travis\.yml|\.circleci/config\.yml|azure-pipelines\.yml|Jenkinsfile|"
    r"bitbucket-pipelines\.yml|\.woodpecker\.ya?ml|\.drone\.yml)$"
)
_DOCUMENT: Final = re.compile(r"\.(md|rst|txt|adoc)$", re.IGNORECASE)
SKIPPED: Final = re.compile(
    r"(^|/)(node_modules|vendor|third_party|dist|build|\.venv|venv|site-packages|__pycache__|\.next|target|coverage|bower_components|Pods)/"
    r"|\.(min\.js|min\.css|map|lock|svg|png|jpe?g|gif|webp|ico|pdf|zip|gz|woff2?|ttf|mp[34]|mov|exe|dll|so|jar|class|pyc|bin)$"
    r"|(^|/)(package-lock\.json|yarn\.lock|pnpm-lock\.yaml|poetry\.lock|uv\.lock|Cargo\.lock|go\.sum|composer\.lock|Gemfile\.lock)$",
    re.IGNORECASE,
)
"""What a team has not written, or what is no text."""


def language_of(path: str) -> str | None:
    """The programming language of a path, by its suffix; None for anything else and for what is not the team's own."""
    if SKIPPED.search(path):
        return None
    _, _, suffix = path.rsplit("/", 1)[-1].rpartition(".")
    return _LANGUAGE.get(suffix.lower())


def is_test(path: str) -> bool:
    """Whether a source file is a test."""
    return language_of(path) is not None and _TEST.search(path) is not None


def is_ci(path: str) -> bool:
    """Whether a file describes a pipeline."""
    return _CI.match(path) is not None


def is_document(path: str) -> bool:
    """Whether a file is prose."""
    return _DOCUMENT.search(path) is not None


def part_of(path: str) -> str | None:
    """The part of a product: backend, frontend, devops, data, docs; None for anything else."""
    if _DEVOPS.search(path):
        return "devops"
    language = language_of(path)
    if language in _BACKEND:
        return "backend"
    if language in _FRONTEND:
        return "frontend"
    if language in {"Jupyter Notebook", "R", "Julia"}:
        return "data"
    if language in {"Shell", "HCL"}:
        return "devops"
    return "docs" if is_document(path) else None
