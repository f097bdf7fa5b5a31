"""Routes of the operators' page, and of the key that it is used with."""

from __future__ import annotations

from dispatcher.auth import Requirement
from dispatcher.ops.key_handler import KeyView, get_key
from dispatcher.ops.page_files import MEDIA_TYPES, get_page, get_page_file
from dispatcher.routes.operation import Answer, Content, Operation, answer

_SCRIPTS = [Content(kinds=(), media_type=kind) for kind in MEDIA_TYPES.values()]
_OPERATOR = {"object": "key", "name": "ops", "tenant": "default", "scopes": ["ops"], "expires": None}

OPERATIONS = (
    Operation(
        method="GET",
        path="/",
        requires=Requirement.PUBLIC,
        handler=get_page,
        name="getPage",
        tag="operating",
        summary="Show the operators' page.",
        description="Without data: the page asks for a key, and reads the routes of this document with it.",
        answers={200: Answer(description="The page.", content=[Content(kinds=(), media_type="text/html")])},
        errors=("NotFound",),
    ),
    Operation(
        method="GET",
        path="/ui/{page_file}",
        requires=Requirement.PUBLIC,
        handler=get_page_file,
        name="getPageFile",
        tag="operating",
        summary="Send a script or a style of the operators' page.",
        answers={200: Answer(description="The file.", content=_SCRIPTS)},
        errors=("NotFound",),
    ),
    Operation(
        method="GET",
        path="/v1/key",
        requires=Requirement.ANY_KEY,
        handler=get_key,
        name="readKey",
        tag="operating",
        summary="Show whose key was sent, and what it may do.",
        answers={200: answer(KeyView, "The key's name, tenant and scopes.", examples={"operator": _OPERATOR})},
    ),
)
