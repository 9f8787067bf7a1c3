"""Performance: architecture, database, API, scalability, resources."""

import re
from typing import Final

from app.judge.agents.subject import SUB_SCORES, Found, Place, Subject, Verdict, bounded, from_places, from_tools

_LARGE: Final = 5 * 1024**2
_LAYER: Final = re.compile(
    r"(^|/)(routes?|controllers?|handlers?|services?|models?|schemas?|repositor(y|ies)|components?|pages|screens|views|domain|core|lib|utils?|api|store|hooks)(/|\.\w+$)"
)
_ORM: Final = re.compile(
    r"\b(sqlalchemy|django\.db|prisma|sequelize|typeorm|mongoose|peewee|gorm|ActiveRecord|diesel|knex|drizzle|sqlite3|psycopg\w*|asyncpg|pymongo|pg\.Pool)\b"
)
_INDEX: Final = re.compile(
    r"\bindex\s*=\s*True|\bCREATE (UNIQUE )?INDEX\b|\bdb_index\s*=|@@index|\.createIndex\(|\bForeignKey\(|\bREFERENCES\b|UniqueConstraint",
    re.IGNORECASE,
)
_MIGRATION: Final = re.compile(r"(^|/)(migrations?|alembic|prisma/schema\.prisma|schema\.sql)(/|$)")
_BUILT_SQL: Final = re.compile(
    r"\b(?:execute|executemany|query|raw)\(\s*"
    r"(?:f[\"'][^\n]*\b(?:SELECT|INSERT|UPDATE|DELETE)\b[^\n]*\{|[\"'][^\n]*\b(?:SELECT|INSERT|UPDATE|DELETE)\b[^\n]*[\"']\s*[%+])",
    re.IGNORECASE,
)
_ROUTE: Final = re.compile(
    r"@\w+\.(get|post|put|patch|delete|route)\(|\b(app|router)\.(get|post|put|patch|delete)\(\s*[\"'`]/|@(Get|Post|Put|Delete|Request)Mapping|http\.HandleFunc|\bpath\(\s*[\"']"
)
_VALIDATED: Final = re.compile(
    r"\bBaseModel\b|\bpydantic\b|\bzod\b|\bz\.object\(|\bjoi\b|serializers?\.|class-validator|marshmallow|@Valid\b"
)
_VERSIONED: Final = re.compile(r"[\"'`/]v[1-9]\d?[/\"'`]")
_STATUS: Final = re.compile(
    r"status_code\s*=|HTTPException|\.status\(\s*[245]\d\d|ResponseEntity|http\.Status|StatusCode"
)
_ASYNC: Final = re.compile(r"\basync (def|function)\b|\bawait\b|\bgo func\(|\btokio::|Promise\.all|asyncio")
_QUEUE: Final = re.compile(
    r"\b(celery|rq|kafka|rabbitmq|sqs|bullmq|redis|memcached|lru_cache|cachetools|ThreadPoolExecutor|multiprocessing)\b",
    re.IGNORECASE,
)
_PAGED: Final = re.compile(r"\b(limit|offset|cursor|page_size|pagination|paginate|per_page)\b", re.IGNORECASE)
_FROM_ENV: Final = re.compile(r"os\.environ|os\.getenv|process\.env|BaseSettings|dotenv|viper\.")
_CONTAINER: Final = re.compile(r"(^|/)(Dockerfile[^/]*|docker-compose[^/]*|compose\.ya?ml)$|(^|/)(k8s|helm|terraform)/")
_SLEEP: Final = re.compile(r"\btime\.sleep\(|Thread\.sleep\(")
_STAR: Final = re.compile(r"\bSELECT\s+\*\s+FROM\b", re.IGNORECASE)
_LOOP_QUERY: Final = re.compile(
    r"\bfor\b[^\n]+:\n(?:[^\n]*\n){0,3}?[^\n]*\.(execute|query|find_one|findOne|get_object)\("
)
_MANAGED: Final = re.compile(
    r"\bwith open\(|\bwith \w+[\w.]*\(|\basync with\b|\busing\s*\(|\bdefer\b|try-with-resources"
)
_OPENED: Final = re.compile(r"(?<!with )\b\w+\s*=\s*open\(")


def judge(subject: Subject) -> Verdict:
    """Judge how it is built to run. A part that a submission does not have (no database, no API) is neither good nor bad: 5."""
    lines = subject.code_lines
    if not lines:
        return Verdict(
            "performance",
            dict.fromkeys(SUB_SCORES["performance"], 0.0),
            0.9,
            improvements=["There is no source code to judge."],
        )
    layers = {match[2].rstrip("s") for file in subject.code if (match := _LAYER.search(file.path))}
    mean = lines / len(subject.code)
    functions = subject.report.functions
    complexity = sum(one.complexity for one in functions) / len(functions) if functions else 4.0
    architecture = (
        3 + min(4.0, 0.9 * len(layers)) + (1.5 if 20 <= mean <= 250 else 0) + max(-2.0, min(1.5, (5 - complexity) / 2))
    )

    def scan(pattern: re.Pattern[str], most: int = 10) -> list[Place]:
        return subject.scan(pattern, most=most, code_only=True)

    orm, built = scan(_ORM), scan(_BUILT_SQL)
    if orm:
        database = (
            5
            + min(2.0, 0.7 * len(scan(_INDEX)))
            + 2 * (subject.has_file(_MIGRATION) is not None)
            - 2 * len(built)
            - 0.5 * len(scan(_STAR))
        )
    else:
        database = 5.0 - 1.0 * len(built)
    routes = scan(_ROUTE, 40)
    api = 5.0
    if routes:
        api = (
            4
            + 2 * bool(scan(_VALIDATED))
            + 1.5 * bool(scan(_VERSIONED))
            + 1.5 * bool(scan(_STATUS))
            + min(1.0, len(routes) / 10)
        )
    container = subject.has_file(_CONTAINER)
    scalability = (
        3
        + 2 * bool(scan(_ASYNC))
        + 1.5 * bool(scan(_QUEUE))
        + 1 * bool(scan(_PAGED))
        + 1.5 * bool(scan(_FROM_ENV))
        + 1.5 * (container is not None)
    )
    slow = [one for one in subject.report.of("ruff") if one.rule.startswith(("PERF", "ASYNC"))]
    sleeps, loops, opened = scan(_SLEEP), scan(_LOOP_QUERY), scan(_OPENED)
    large = [file for file in subject.repository.files if file.size > _LARGE]
    resources = (
        7 + 2 * bool(scan(_MANAGED)) + (1 if mean < 400 else 0)
        - 0.4 * len(slow) / subject.thousands - 0.5 * len(sleeps) - 1.5 * len(loops) - 0.5 * len(opened) - 1.0 * len(large)
    )  # fmt: skip
    evidence = [
        *from_places(built[:3], "SQL is built from text: parameters are safer and faster", "high", "pattern"),
        *from_places(loops[:3], "A query in a loop", "medium", "pattern"),
        *(
            Found(f"A file of {file.size // 1024**2} MB is in the repository", file.path, None, "medium", "size")
            for file in large[:2]
        ),
        *from_tools(slow)[:3],
        *from_places(opened[:2], "A file is opened and perhaps not closed", "low", "pattern"),
        *from_places(sleeps[:2], "It sleeps", "low", "pattern"),
        *from_places(routes[:1], "Routes of an API", "info", "pattern"),
        *from_places(orm[:1], "Uses a database", "info", "pattern"),
    ]
    strengths = [s for s, good in (
        (f"Layers: {', '.join(sorted(layers)[:5])}", len(layers) >= 3),
        ("Inputs of the API are validated", bool(routes) and bool(scan(_VALIDATED))),
        ("It can be started as a container", container is not None),
        ("Settings come from the environment", bool(scan(_FROM_ENV))),
    ) if good]  # fmt: skip
    improvements = [s for s, bad in (
        ("Separate routes, services and data", len(layers) < 2 and lines > 300),
        ("Use parameters for SQL", bool(built)),
        ("Validate what the API takes", bool(routes) and not scan(_VALIDATED)),
        ("Add migrations or a schema", bool(orm) and subject.has_file(_MIGRATION) is None),
        ("Leave large files out of the repository", bool(large)),
    ) if bad]  # fmt: skip
    known = sum((bool(orm), bool(routes), bool(functions), container is not None))
    scores = {
        "architecture": bounded(architecture),
        "database_design": bounded(database),
        "api_design": bounded(api),
        "scalability": bounded(scalability),
        "resource_efficiency": bounded(resources),
    }
    return Verdict("performance", scores, round(0.5 + 0.1 * known, 2), strengths, improvements, evidence)
