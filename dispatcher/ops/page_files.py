"""GET / and /ui/{page_file}: the operators' page. Its files hold no data; what it shows, it asks for with a key."""

from __future__ import annotations

import gzip
import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from dispatcher.http.responses import Response
from dispatcher.state import intake_state

MEDIA_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# Scripts, styles and what they ask come from this intake alone, and no text becomes markup (trusted types): what
# tenants write into tags, ids and errors is shown, never run.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, and sent again only after an upgrade: the page and its intake are of one version.
    "Cache-Control": "no-cache",
    "Vary": "Accept-Encoding",
}


class _File(NamedTuple):
    plain: bytes
    packed: bytes
    tag: str
    media_type: str


async def get_page(request: HttpRequest) -> Response:
    """Show the operators' page."""
    return _send(request, "index.html")


async def get_page_file(request: HttpRequest) -> Response:
    """Send a script or a style of the page."""
    return _send(request, request.path_params["page_file"])


def _send(request: HttpRequest, name: str) -> Response:
    file = _files().get(name)
    if file is None or not intake_state(request).settings.intake.page:
        raise HTTPException(404)
    headers = _HEADERS | {"ETag": file.tag}
    if file.tag in request.headers.get("if-none-match", ""):
        return Response(None, 304, headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(file.packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=file.media_type)
    return Response(file.plain, headers=headers, media_type=file.media_type)


@cache
def _files() -> dict[str, _File]:
    """Return what may be sent, by name; licences and notes beside it are not."""
    sent = {}
    folder = files("dispatcher.ops") / "page"
    for path in (*folder.iterdir(), *(folder / "vendor").iterdir()):
        if media_type := MEDIA_TYPES.get(path.name[path.name.rfind(".") :]):
            plain = path.read_bytes()
            tag = f'W/"{hashlib.sha256(plain).hexdigest()[:16]}"'
            sent[path.name] = _File(plain, gzip.compress(plain, mtime=0), tag, media_type)
    return sent
