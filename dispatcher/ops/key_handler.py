"""GET /v1/key: whose key was sent and what it may do, so that a page can say before what would be refused."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request as HttpRequest

from bitladder.queue.json_views.kinds import Timestamp
from bitladder.settings.access import Caller
from dispatcher.http.responses import Response, json_response


class KeyView(msgspec.Struct, frozen=True, kw_only=True):
    """The API key that was sent; never the key itself."""

    object: Literal["key"] = "key"
    name: Annotated[str, Meta(description="Its name in the settings; '' where no key is required.")]
    tenant: str
    scopes: list[str]
    expires: Annotated[Timestamp | None, Meta(description="null: never.")]


async def get_key(request: HttpRequest) -> Response:
    """Show whose key was sent, and its scopes."""
    caller: Caller = request.state.caller
    expires = caller.expires.timestamp() if caller.expires else None
    view = KeyView(name=caller.key, tenant=caller.tenant, scopes=sorted(caller.scopes), expires=expires)
    return json_response(view)
