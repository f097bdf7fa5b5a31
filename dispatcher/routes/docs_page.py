"""The page at /docs, which shows /openapi.json: files of this package, nothing from other hosts."""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest

from dispatcher.auth import Requirement
from dispatcher.http.responses import Response
from dispatcher.routes.operation import Answer, Content, Operation

_HTML, _SCRIPT, _STYLE = "text/html", "text/javascript", "text/css"

# RapiDoc writes its styles into the page. Scripts, and whatever they ask, come from the intake alone.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class _File(NamedTuple):
    media_type: str
    is_packed: bool = False


_FILES = {"page.js": _File(_SCRIPT), "page.css": _File(_STYLE), "rapidoc-min.js": _File(_SCRIPT, is_packed=True)}


async def _get_page(_request: HttpRequest) -> Response:
    """Show the API as a page."""
    return Response(_read("page.html"), headers={"Content-Security-Policy": _POLICY}, media_type=_HTML)


async def _get_file(request: HttpRequest) -> Response:
    """Send a script or a style of the page."""
    name = request.path_params["file"]
    if name not in _FILES:
        raise HTTPException(404)
    file = _FILES[name]
    headers = {"X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
    if not file.is_packed:
        return Response(_read(name), headers=headers, media_type=file.media_type)
    packed = _read(f"{name}.gz")
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(packed, headers=headers | {"Content-Encoding": "gzip"}, media_type=file.media_type)
    return Response(gzip.decompress(packed), headers=headers, media_type=file.media_type)


@cache
def _read(name: str) -> bytes:
    return (files("dispatcher.routes") / "page" / name).read_bytes()


OPERATIONS = (
    Operation(
        method="GET",
        path="/docs",
        requires=Requirement.PUBLIC,
        handler=_get_page,
        name="getDocs",
        tag="operating",
        summary="Show these routes as a page for people.",
        answers={200: Answer(description="The page.", content=[Content(kinds=(), media_type=_HTML)])},
    ),
    Operation(
        method="GET",
        path="/docs/{file}",
        requires=Requirement.PUBLIC,
        handler=_get_file,
        name="getDocsFile",
        tag="operating",
        summary="Send a script or a style of that page.",
        answers={
            200: Answer(
                description="The file.", content=[Content(kinds=(), media_type=kind) for kind in (_SCRIPT, _STYLE)]
            )
        },
        errors=("NotFound",),
    ),
)
