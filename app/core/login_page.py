"""The login page of every app: one form, no script, nothing from elsewhere."""

import base64
import hashlib
from collections.abc import Mapping
from html import escape
from typing import Final

from fastapi import Response
from fastapi.responses import HTMLResponse

_STYLE: Final = """
:root { color-scheme: light dark; --back: #fbfaf7; --card: #fff; --text: #22261f; --line: #d9d6cc; --accent: #37683f; --bad: #9b2c1f; }
@media (prefers-color-scheme: dark) {
  :root { --back: #161a16; --card: #20261f; --text: #e9ece4; --line: #3b443a; --accent: #8fc79a; --bad: #ff9d8f; }
}
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
main { width: min(24rem, 100%); background: var(--card); border: 1px solid var(--line); border-radius: .75rem; padding: 2rem; }
h1 { font-size: 1.35rem; line-height: 1.25; margin: 0 0 .25rem; }
p { margin: 0 0 1.25rem; opacity: .8; }
p.refused { opacity: 1; color: var(--bad); font-weight: 600; }
label { display: block; font-weight: 600; margin-bottom: .35rem; }
input { width: 100%; font: inherit; padding: .6rem .75rem; border: 1px solid var(--line); border-radius: .5rem; background: var(--back);
  color: inherit; }
button { width: 100%; margin-top: 1rem; font: inherit; font-weight: 600; padding: .65rem; border: 0; border-radius: .5rem; cursor: pointer;
  background: var(--accent); color: var(--card); }
input:focus-visible, button:focus-visible { outline: 3px solid var(--accent); outline-offset: 2px; }
"""
_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = (
    f"default-src 'none'; style-src 'sha256-{_HASH}'; img-src data:; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in: {title}</title>
<link rel="icon" href="data:,">
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{word}
<form method="post" action="{action}">
<label for="password">Admin password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>
<input type="hidden" name="redirect" value="{target}">
<button type="submit">Log in</button>
</form>
</main>
</body>
</html>
"""


def answer(
    title: str,
    action: str,
    target: str,
    refused: str = "",
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The page; `target` is where to go after the login, `refused` why the last try failed."""
    word = f'<p class="refused" role="alert">{escape(refused)}</p>' if refused else "<p>This part needs a login.</p>"
    page = _PAGE.format(
        title=escape(title),
        style=_STYLE,
        word=word,
        action=escape(action, quote=True),
        target=escape(target, quote=True),
    )
    own = {"Content-Security-Policy": _POLICY, "X-Frame-Options": "DENY", "Cache-Control": "no-store"}
    return HTMLResponse(page, status, {**(headers or {}), **own})
