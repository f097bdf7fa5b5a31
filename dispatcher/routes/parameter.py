"""A parameter of a route: of its path, its query or its headers."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec


class Parameter(NamedTuple):
    """One parameter of a path, a query or the headers."""

    name: str
    place: str  # path, query or header
    kind: Any  # what its value is
    description: str
    default: int | None = None
    example: object = None

    def as_json(self) -> dict[str, Any]:
        schema = schema_of(self.kind)
        if self.default is not None:
            schema["default"] = self.default
        shown: dict[str, Any] = {"name": self.name, "in": self.place, "description": self.description, "schema": schema}
        if self.place == "path":
            shown["required"] = True
        return shown if self.example is None else shown | {"example": self.example}


def schema_of(kind: Any) -> dict[str, Any]:  # noqa: ANN401  (a type)
    """Return the schema of a value that has no fields."""
    schema = msgspec.json.schema(kind)
    if "$defs" in schema:  # an enumeration
        (schema,) = schema["$defs"].values()
    return {name: value for name, value in schema.items() if name not in ("title", "description")}
