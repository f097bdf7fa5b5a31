"""Authentication and authorisation: the API key, its scope, its rate, and how many of its requests are open at once.

Each route says what it requires (`require`), and no route can be made without saying it.
"""

from __future__ import annotations

import contextlib
import ipaddress
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import redis.asyncio
import structlog
from redis.exceptions import RedisError
from starlette.middleware import Middleware
from starlette.requests import Request as HttpRequest
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bitladder.errors import (
    AuthenticationError,
    ConfigError,
    ForbiddenError,
    RateLimitError,
    WebPageError,
)
from bitladder.queue.calls.upkeep import rate_call
from bitladder.queue.run_script import run
from bitladder.queue.server.protocol import unreachable
from bitladder.settings import access
from bitladder.settings.access import ANYBODY, NO_RULES, AuthSettings, Caller, KeyRules, KeySettings, key_hash
from bitladder.settings.live import LiveSettings
from bitladder.settings.sections import Settings
from dispatcher.http.own_page import is_foreign_page
from dispatcher.http.rate_headers import RATE, rate_headers
from dispatcher.http.responses import Handler

log = structlog.get_logger()
# Ours have 46 characters. Longer ones are not worth hashing.
_MAX_KEY_BYTES = 256
_KEY_HEADERS = (b"authorization", b"api-key", b"x-api-key")


class Requirement(StrEnum):
    """What a route requires of its caller's API key."""

    PUBLIC = "public"  # no key
    ANY_KEY = "any key"
    SUBMIT = access.Scope.SUBMIT
    READ = access.Scope.READ
    OPS_READ = access.Scope.OPS_READ
    OPS_WRITE = access.Scope.OPS_WRITE

    def is_met_by(self, caller: Caller) -> bool:
        """Return whether a caller with a valid key has the scope. Who sees the jobs of every tenant may read."""
        return self is self.ANY_KEY or caller.has(self.value) or (self is self.READ and caller.sees_all)


def require(requirement: Requirement, method: str, path: str, handler: Handler) -> Route:
    """Return a route whose handler runs only where the caller meets the requirement."""
    middleware = [] if requirement is Requirement.PUBLIC else [Middleware(AuthMiddleware, requirement)]
    return Route(path, handler, methods=[method], middleware=middleware)


def check_may_change(request: HttpRequest, tenant: str) -> None:
    """Refuse who may see what is a tenant's, and not change it.

    Raises:
        ForbiddenError: it is another tenant's, and the key only reads those.

    """
    caller: Caller = request.state.caller
    if not caller.changes(tenant):
        raise ForbiddenError(
            f"this is another tenant's: to change it, a key needs the scope {access.Scope.OPS_WRITE!r}"
        )


class AuthMiddleware:
    """Stands before one handler: puts the caller into the request's state, or refuses before the body is read."""

    def __init__(self, app: ASGIApp, requirement: Requirement) -> None:
        self.app = app
        self.requirement = requirement

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        authenticator: Authenticator = scope["app"].state.intake.authenticator
        caller = authenticator.authenticate(scope["headers"])
        if not self.requirement.is_met_by(caller):
            raise ForbiddenError(f"this needs a key with the scope {self.requirement.value!r}; the key sent lacks it")
        scope["state"]["caller"] = caller
        with authenticator.in_flight(caller):
            if caller.requests_per_minute:
                await authenticator.count(caller.key, caller.requests_per_minute, scope["state"])
            await self.app(scope, receive, send)


class Authenticator:
    """The API keys of one intake, and how many requests of each are open."""

    def __init__(self, settings: Settings | LiveSettings, client: redis.asyncio.Redis, *, is_required: bool) -> None:
        live = LiveSettings.of(settings)
        self._is_required, self._callers = is_required, _callers(live.current.auth)
        self._is_loopback = _is_loopback(live.current.intake.host)
        self._open: Counter[str] = Counter()  # requests by key
        self._client = client
        live.subscribe(self._prepare)

    def _prepare(self, settings: Settings) -> Callable[[], None]:
        is_required, callers = _requires_keys(settings), _callers(settings.auth)  # without any, nobody is let in

        def take() -> None:
            self._is_required, self._callers = is_required, callers

        return take

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]]) -> Caller:
        """Return who sends the request.

        Raises:
            AuthenticationError: there is no key, or it is not configured.
            WebPageError: no keys are required, and a web page uses the browser of somebody who can reach the intake.

        """
        if not self._is_required:
            if is_foreign_page(headers):
                raise WebPageError(
                    "web pages may not use an intake without API keys: configure one, name their origin in "
                    "intake.cors_origins, and send the key"
                )
            return ANYBODY
        # The time of the look-up helps nobody to guess a key: hashes are compared, and a key cannot be chosen so that
        # its hash begins like another's.
        for key in _keys(headers):
            if caller := self._callers.get(key_hash(key)):
                return _unexpired(caller)
        raise AuthenticationError("send a valid API key: 'Authorization: Bearer <key>' (api-key and x-api-key will do)")

    def sees_details(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return whether an error may name hosts behind the intake: to an operator's key, or on loopback without keys.

        The client's address says nothing: behind a proxy on this machine, all requests come from here.
        """
        if not self._is_required:
            return self._is_loopback
        with contextlib.suppress(AuthenticationError):
            return self.authenticate(headers).sees_all
        return False

    @contextlib.contextmanager
    def in_flight(self, caller: Caller) -> Iterator[None]:
        """Count a request as open while the block runs, its streamed answer included.

        Raises:
            RateLimitError: the key has its maximum of open requests.

        """
        if caller.max_in_flight is None:
            yield
            return
        if self._open[caller.key] >= caller.max_in_flight:
            message = (
                f"the key {caller.key} has {caller.max_in_flight} requests open at this intake, long polls and streams "
                f"included: its maximum ([auth.keys.{caller.key}].max_in_flight, or [auth].max_in_flight)"
            )
            raise RateLimitError(message, retry_after_s=1)
        self._open[caller.key] += 1
        try:
            yield
        finally:
            self._open[caller.key] -= 1

    async def count(self, key: str, limit: int, state: dict[str, Any]) -> None:
        """Count one request of a key, over all intakes, and note in its state what is left.

        Raises:
            RateLimitError: it has used up its rate.
            QueueUnreachableError: Redis is unreachable.

        """
        try:
            wait_ms, reset_ms = map(int, await run(self._client, rate_call(key, limit)))
        except (RedisError, OSError) as error:
            raise unreachable("cannot count the request", error) from error
        state[RATE] = rate_headers(limit, reset_ms)
        if wait_ms:
            raise RateLimitError(f"the key {key} may send {limit} requests per minute", retry_after_s=wait_ms / 1000)


def is_key_required(settings: Settings) -> bool:
    """Return whether requests need a key.

    Raises:
        ConfigError: they do, and there is none.

    """
    auth, host = settings.auth, settings.intake.host
    is_exposed, is_required = not _is_loopback(host), _requires_keys(settings)
    if is_required and not auth.keys:
        why = f"intake.host is {host!r}, which other machines can reach"
        otherwise = ", or set auth.required = false to accept requests without a key"
        if settings.intake.cors_origins:
            why, otherwise = "intake.cors_origins names web pages, whose visitors could all use the intake", ""
        elif auth.required is not None:
            why = "auth.required is true"
        raise ConfigError(f"auth.keys is empty, but {why}: make a key with `bitladder keys new`{otherwise}")
    if is_exposed and not is_required:
        log.warning("no API key is required: who reaches the intake may use it", host=host, setting="auth.required")
    return is_required


def _requires_keys(settings: Settings) -> bool:
    auth = settings.auth
    is_usual = bool(auth.keys or settings.intake.cors_origins) or not _is_loopback(settings.intake.host)
    return is_usual if auth.required is None else auth.required


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _callers(auth: AuthSettings) -> dict[str, Caller]:
    """Return who has which key, by the key's hash."""
    weights: dict[str, int] = {}
    for key in auth.keys.values():
        weights[key.tenant] = max(weights.get(key.tenant, 1), key.weight)
    return {
        key.hash.get_secret_value(): _caller(name, key, auth, weights[key.tenant]) for name, key in auth.keys.items()
    }


def _caller(name: str, key: KeySettings, auth: AuthSettings, weight: int) -> Caller:
    return Caller(
        key=name,
        tenant=key.tenant,
        scopes=frozenset(key.scopes),
        requests_per_minute=key.requests_per_minute,
        max_in_flight=key.max_in_flight or auth.max_in_flight,
        max_queued=key.max_queued,
        has_budget=key.budget_per_day is not None,
        weight=weight,
        expires=key.expires,
        rules=KeyRules(name, key.defaults or NO_RULES.defaults, key.limits or NO_RULES.limits),
    )


def _unexpired(caller: Caller) -> Caller:
    if caller.expires and caller.expires <= datetime.now(UTC):
        raise AuthenticationError(f"this API key has expired on {caller.expires:%Y-%m-%d %H:%M %Z}: ask for a new one")
    return caller


def _keys(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Yield the keys that a request carries, where the clients of OpenAI, Azure and Anthropic send theirs."""
    for name, value in headers:
        scheme, _, key = value.partition(b" ") if name == b"authorization" else (b"bearer", b"", value)
        if name in _KEY_HEADERS and scheme.lower() == b"bearer" and 0 < len(key) <= _MAX_KEY_BYTES:
            yield key.strip()
