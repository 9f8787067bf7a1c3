"""Which technologies and services a submission uses, by its manifests, its imports and its words."""

import re
from typing import Final

_IMPORT: Final = r"(?:^|\n)\s*(?:import|from|use|require\(|const .{1,60}require\(|import .{1,120} from)\s*[\"'(]?"
TECHNOLOGIES: Final[dict[str, str]] = {
    "FastAPI": "fastapi",
    "Flask": "flask",
    "Django": "django",
    "Streamlit": "streamlit",
    "Gradio": "gradio",
    "Express": "express",
    "NestJS": "@nestjs",
    "Next.js": "next",
    "React": "react",
    "Vue": "vue",
    "Svelte": "svelte",
    "Angular": "@angular",
    "Tailwind": "tailwindcss",
    "Spring": "org.springframework",
    "PyTorch": "torch",
    "TensorFlow": "tensorflow",
    "scikit-learn": "sklearn|scikit-learn",
    "pandas": "pandas",
    "NumPy": "numpy",
    "SQLAlchemy": "sqlalchemy",
    "Prisma": "prisma|@prisma",
    "PostgreSQL": "psycopg2?|asyncpg|pg",
    "MongoDB": "pymongo|mongoose|mongodb",
    "Redis": "redis|ioredis",
    "Celery": "celery",
    "LangChain": "langchain|@langchain",
    "LlamaIndex": "llama_index|llama-index",
    "Hugging Face": "transformers|huggingface_hub",
    "OpenCV": "cv2|opencv-python",
    "Socket.IO": "socketio|socket\\.io|socket\\.io-client",
    "WebSockets": "websockets|ws",
    "Three.js": "three",
    "D3": "d3",
    "Plotly": "plotly",
    "GraphQL": "graphql|graphene|strawberry|@apollo",
    "gRPC": "grpc|@grpc",
    "Web3": "web3|ethers|solana",
    "Pydantic": "pydantic",
    "Electron": "electron",
    "Flutter": "package:flutter",
    "Docker": "docker",
}
NOVEL: Final = frozenset(
    "PyTorch|TensorFlow|LangChain|LlamaIndex|Hugging Face|OpenCV|Socket.IO|WebSockets|Three.js|Web3|GraphQL|gRPC|D3".split(
        "|"
    )
)
"""Those that make a project stand out among forms over a database."""
SPONSORS: Final[dict[str, str]] = {
    "OpenAI": r"\bopenai\b|api\.openai\.com",
    "Anthropic": r"\banthropic\b|api\.anthropic\.com",
    "Google Gemini": r"\bgenerativeai\b|google\.genai|generativelanguage\.googleapis",
    "AWS": r"\bboto3\b|@aws-sdk|amazonaws\.com",
    "AWS Bedrock": r"bedrock-runtime|\bbedrock\b",
    "Google Cloud": r"google\.cloud|@google-cloud",
    "Azure": r"\bazure[.-]|@azure/",
    "Stripe": r"\bstripe\b",
    "Twilio": r"\btwilio\b",
    "SendGrid": r"\bsendgrid\b",
    "Supabase": r"\bsupabase\b",
    "Firebase": r"\bfirebase\b",
    "Vercel": r"@vercel/|vercel\.json",
    "Cloudflare": r"\bwrangler\b|cloudflare:",
    "MongoDB Atlas": r"mongodb\+srv://",
    "Pinecone": r"\bpinecone\b",
    "Auth0": r"\bauth0\b",
    "Mapbox": r"\bmapbox",
    "GitHub": r"api\.github\.com|@octokit|\bPyGithub\b",
    "Slack": r"\bslack_sdk\b|@slack/|hooks\.slack\.com",
    "ElevenLabs": r"\belevenlabs\b",
}

_MANIFEST: Final = re.compile(
    r"(^|/)(requirements[^/]*\.txt|pyproject\.toml|package\.json|go\.mod|Cargo\.toml|Gemfile|pom\.xml|build\.gradle(\.kts)?|"
    r"pubspec\.yaml|composer\.json)$"
)
_TECHNOLOGY: Final = {
    name: (
        re.compile(rf"{_IMPORT}(?:{words})\b"),
        re.compile(rf"(?:^|[\"'\s/@])(?:{words})(?:[\"'\s=<>~\[;,:]|$)", re.MULTILINE),
    )
    for name, words in TECHNOLOGIES.items()
}
_SPONSOR: Final = {name: re.compile(words) for name, words in SPONSORS.items()}


def is_manifest(path: str) -> bool:
    """Whether a file lists dependencies."""
    return _MANIFEST.search(path) is not None


def technologies(code: str, manifests: str) -> list[str]:
    """Names of what this code imports or these manifests list, in the order of `TECHNOLOGIES`."""
    return [
        name for name, (imported, listed) in _TECHNOLOGY.items() if listed.search(manifests) or imported.search(code)
    ]


def sponsors(text: str) -> list[str]:
    """Services whose API this text uses."""
    return [name for name, pattern in _SPONSOR.items() if pattern.search(text)]
