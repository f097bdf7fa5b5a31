"""Kinds of values in JSON, with what a schema says of them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

Count = Annotated[int, Meta(ge=0)]
Duration = Annotated[float, Meta(ge=0)]
Timestamp = Annotated[float, Meta(description="Seconds since 1970.")]
# The names that are configured: /openapi.json lists them.
ModelName = Annotated[str, Meta(extra_json_schema={"$ref": "#/components/schemas/ModelName"})]
TierName = Annotated[str, Meta(extra_json_schema={"$ref": "#/components/schemas/TierName"})]
