"""Options that several commands have."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

import msgspec
import typer

from bitladder.errors import ConfigError

Config = Annotated[
    str | None,
    typer.Option("--config", "-c", help="Configuration file (default: $BITLADDER_CONFIG, ./bitladder.toml)."),
]
Url = Annotated[str, typer.Option(envvar="BITLADDER_URL", help="The intake.")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="BITLADDER_API_KEY", help="The intake's API key; as a variable, ps does not show it."),
]
DEFAULT_URL = "http://127.0.0.1:8000"
OperatorUrl = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="BITLADDER_URL",
        help="The intake to ask, with a key that has the scope ops:read, or ops:write for orders. Without it, and with "
        "--config: Redis itself.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count the jobs.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal to ask on.")]
Reason = Annotated[str, typer.Option(help="Why: the audit log shows it.")]
Model = Annotated[str, typer.Option(help="The model.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="A field of the body, as temperature=0.2 or stop='[\"x\"]': JSON, else text. Repeatable."
    ),
]
BodyJson = Annotated[str | None, typer.Option("--body", help="Fields of the body, as a JSON object.")]
# What a request may cost, how long it may take and how good it must be: an option for each header of the envelope.
_ENVELOPE: dict[str, Any] = {
    "priority": Annotated[int | None, typer.Option(help="1 to 10.")],
    "max_latency_ms": Annotated[int | None, typer.Option(help="How long you can wait.")],
    "deadline_ms": Annotated[int | None, typer.Option(help="After it the job is dropped or aborted.")],
    "min_tier": Annotated[str | None, typer.Option(help="Lowest tier.")],
    "max_tier": Annotated[str | None, typer.Option(help="Highest tier.")],
    "max_cost": Annotated[float | None, typer.Option(help="The most it may be expected to cost.")],
    "allow_below_floor": Annotated[bool | None, typer.Option(help="Consent to a lower tier than its floor.")],
}
# Which jobs an order is about: an option for each field of a filter.
_JOB_FILTER: dict[str, Any] = {
    "tier": Annotated[str | None, typer.Option(help="Only jobs of this tier.")],
    "lane": Annotated[str | None, typer.Option(help="Only jobs of this lane.")],
    "model": Annotated[str | None, typer.Option(help="Only jobs of this model.")],
    "tenant": Annotated[str | None, typer.Option(help="Only jobs of this tenant.")],
    "tag": Annotated[str | None, typer.Option(help="Only jobs with this tag.")],
    "batch": Annotated[str | None, typer.Option(help="Only jobs of this batch.")],
    "older_than": Annotated[str | None, typer.Option(help="Only jobs that wait (or run) for so long: 45s, 10m, 12h.")],
}


def with_envelope(command: Callable[..., None]) -> Callable[..., None]:
    """Add the envelope's options to a command: it gets them as its `envelope`."""
    return _with_options(command, "envelope", _ENVELOPE, before="as_json")


def with_job_filter(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of a filter of jobs to a command: it gets them as its `chosen`."""
    return _with_options(command, "chosen", _JOB_FILTER, before="everything")


def _with_options(
    command: Callable[..., None], name: str, options: Mapping[str, Any], *, before: str
) -> Callable[..., None]:
    """Add options before another one of a command, which gets them together under one name; each is None by default."""

    @functools.wraps(command)
    def with_options(**arguments: Any) -> None:  # noqa: ANN401  (a command's options)
        command(**{name: {option: arguments.pop(option) for option in options}}, **arguments)

    signature = inspect.signature(command, eval_str=True)
    named = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        parameter.replace(kind=named) for parameter in signature.parameters.values() if parameter.name != name
    ]
    place = [parameter.name for parameter in parameters].index(before)
    parameters[place:place] = [
        inspect.Parameter(option, named, default=None, annotation=kind) for option, kind in options.items()
    ]
    with_options.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def body_fields(body: str | None, settings: Iterable[str] | None) -> dict[str, Any]:
    """Return the fields of a body that --body and --set name.

    Raises:
        ConfigError: one is wrong.

    """
    fields: dict[str, Any] = {}
    if body is not None:
        try:
            fields = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(f"--body must be a JSON object: {error}") from error
    for text in settings or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set must be as temperature=0.2, got {text[:80]!r}")
        try:
            fields[name] = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            fields[name] = value
    return fields
