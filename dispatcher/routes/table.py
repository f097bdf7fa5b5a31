"""The table of all routes: who may use each, which handler answers, and what /openapi.json says of it."""

from __future__ import annotations

from starlette.requests import Request as HttpRequest
from starlette.routing import Route

from dispatcher.auth import Requirement
from dispatcher.http.responses import Response, json_response
from dispatcher.routes import (
    batch_routes,
    docs_page,
    file_routes,
    inference_routes,
    job_routes,
    response_routes,
    webhook_routes,
)
from dispatcher.routes.document import document
from dispatcher.routes.engine_bodies import Document
from dispatcher.routes.operation import Operation, answer
from dispatcher.routes.ops import (
    listing_routes,
    operating_routes,
    overview_routes,
    page_routes,
    settings_routes,
    steering_routes,
)
from dispatcher.state import intake_state


async def get_openapi(request: HttpRequest) -> Response:
    """Show the OpenAPI document."""
    state = intake_state(request)
    whole = state.watch.files.settings  # with the models that are at other Redis
    return json_response(document(state.settings.model_copy(update={"models": whole.models}), OPERATIONS))


OPERATIONS = (
    *inference_routes.OPERATIONS,
    *response_routes.OPERATIONS,
    *listing_routes.OPERATIONS,
    *job_routes.OPERATIONS,
    *file_routes.OPERATIONS,
    *batch_routes.OPERATIONS,
    *webhook_routes.OPERATIONS,
    *operating_routes.OPERATIONS,
    *page_routes.OPERATIONS,
    *overview_routes.OPERATIONS,
    *settings_routes.OPERATIONS,
    *steering_routes.OPERATIONS,
    Operation(
        method="GET",
        path="/openapi.json",
        requires=Requirement.ANY_KEY,
        handler=get_openapi,
        name="getOpenApi",
        tag="operating",
        summary="Show this document.",
        answers={200: answer(Document, "An OpenAPI 3.1 document.")},
    ),
    *docs_page.OPERATIONS,
)


def routes() -> list[Route]:
    """Return all routes."""
    return [operation.route() for operation in OPERATIONS]
