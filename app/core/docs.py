"""The interactive API description at `/docs`: Swagger UI from this host, nothing from elsewhere, no inline script."""

from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

_OWN: Final = Path(__file__).with_name("static")
# Swagger UI sets style attributes and draws its icons from data: addresses; scripts come from this host only
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{prefix}/docs/swagger-ui.css">
<script src="{prefix}/docs/swagger-ui-bundle.js" defer></script>
<script src="{prefix}/docs/docs.js" defer></script>
</head>
<body>
<main id="docs" data-openapi="{prefix}/openapi.json"></main>
</body>
</html>
"""


def _files() -> dict[str, Path]:
    spec = find_spec("fastapi_offline")  # found, not imported: only its files are of use
    if spec is None or spec.origin is None:
        raise RuntimeError("the API docs need the package fastapi-offline: install the locked dependencies")
    theirs = Path(spec.origin).with_name("static")
    return {
        "swagger-ui.css": theirs / "swagger-ui.css",
        "swagger-ui-bundle.js": theirs / "swagger-ui-bundle.js",
        "docs.js": _OWN / "docs.js",
    }


def install(app: FastAPI) -> None:
    """Serve `/docs` for `app`."""
    files = _files()

    @app.get("/docs", include_in_schema=False)
    def docs(request: Request) -> Response:
        prefix = escape(str(request.scope.get("root_path", "")), quote=True)
        page = _PAGE.format(title=escape(app.title), prefix=prefix)
        return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"})

    @app.get("/docs/{name}", include_in_schema=False)
    def docs_file(name: str) -> Response:
        if name not in files:
            return Response(status_code=404)
        return FileResponse(files[name], headers={"Cache-Control": "public, max-age=86400"})
