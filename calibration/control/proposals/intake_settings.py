"""The live settings of a running intake, as proposals change them."""

from __future__ import annotations

from typing import Any

import msgspec

from bitladder.client import Client
from bitladder.errors import ConfigError, JobError
from calibration.errors import EngineFailedError, InputError, ProposalRefusedError

_PATH = "/v1/settings"
_CONFLICT = 409


class LiveRow(msgspec.Struct, frozen=True, kw_only=True):
    """A setting: its value, and who set it live, where somebody has."""

    value: Any
    is_live: bool = False
    revision: int | None = None
    at: float | None = None  # since when
    reason: str = ""
    author: str = ""


class IntakeSettings(Client):
    """An intake's GET and PATCH /v1/settings."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        try:
            super().__init__(url, api_key=api_key, timeout_s=30)
        except ConfigError as error:
            raise InputError(str(error)) from error

    def read(self) -> tuple[int, dict[str, LiveRow]]:
        """Return the revision, and the settings by key.

        Raises:
            EngineFailedError: the intake does not answer, or cannot read its live settings.
            InputError: the API key may not read them.

        """
        answer = self._asked("GET")
        if answer.get("problem"):
            raise EngineFailedError(f"the live settings cannot be read: {answer['problem']}")
        try:
            return answer["revision"], {row["key"]: _row(row) for row in answer["data"]}
        except (KeyError, TypeError) as error:
            raise EngineFailedError(f"{_PATH} is no answer of an intake: {error!r} is missing") from error

    def change(
        self, values: dict[str, Any], unset: tuple[str, ...], *, reason: str, revision: int, for_s: float | None = None
    ) -> int:
        """Change settings if they still have this revision, for a while or until they are unset; return the new one.

        Raises:
            ProposalRefusedError: somebody else has changed them, or the intake refuses the values.
            EngineFailedError: there was no answer: they may have been changed.

        """
        order = {"set": values, "unset": list(unset), "reason": reason[:300], "revision": revision, "for_s": for_s}
        return int(self._asked("PATCH", json=order)["revision"])

    def _asked(self, method: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401  (of the client's call)
        try:
            return self._call(method, _PATH, **arguments)
        except JobError as error:
            if method == "GET" and error.status in (401, 403):
                raise InputError(f"the intake wants an API key with the scope ops:read: {error}") from error
            if method == "GET":
                raise EngineFailedError(f"the live settings cannot be read: {error}") from error
            if error.status == _CONFLICT:
                raise ProposalRefusedError(f"{error}; nothing was changed, try again") from error
            if error.status is not None and error.status < 500:
                raise ProposalRefusedError(f"the intake refuses: {error}") from error
            raise EngineFailedError(f"the intake did not do it: {error}") from error


def _row(row: dict[str, Any]) -> LiveRow:
    live = row["live"]
    if live is None:
        return LiveRow(value=row["value"])
    return LiveRow(
        value=row["value"],
        is_live=True,
        revision=live["revision"],
        at=live["at"],
        reason=live["reason"],
        author=str(live["by"]),
    )
