"""The folder of a canary: its state, and a line for each pair, on disk before the next is asked."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal, Self

import msgspec
import numpy as np

from calibration.artifacts.folder import replace_file, writing
from calibration.artifacts.json_journal import add_lines, held, read_records, without_torn_line
from calibration.control.canary.comparing import Pair
from calibration.control.canary.eprocess import Numbers
from calibration.control.canary.spec import Spec, share_of
from calibration.errors import InputError

_PAIRS, _STATE = "pairs.jsonl", "canary.json"
Order = Literal["stop", "promote"]
_ORDERS: tuple[Order, ...] = ("stop", "promote")  # the first one counts
_decode_pair = msgspec.json.Decoder(Pair).decode
Phase = Literal["running", "awaits promotion", "promoted", "rolled back", "left alone"]


class HeldError(InputError):
    """Another process holds the folder."""


class CanaryState(msgspec.Struct, frozen=True, kw_only=True):
    """Where a canary is."""

    spec: Spec
    prompts: str
    started_at: float
    policy_before: tuple[object, bool] = (None, False)
    counts_before: tuple[int, int] = (0, 0)  # see CanaryStack, when it began
    phase: Phase = "running"
    ending: Phase | None = None  # what is being done to end it
    why: str = ""
    leased_until: float = 0.0  # the share ends by itself then
    decided_at: float | None = None
    ended_at: float | None = None
    fine_after: int | None = None  # pairs; those behind them were made while it waited for its promotion
    touched: int | None = None  # requests of others that the candidate was given, at least
    decision: str = "undecided"

    @property
    def is_over(self) -> bool:
        return self.phase not in ("running", "awaits promotion")

    def lapsed(self, value: object) -> bool:
        """Return whether the share has ended by itself, and nobody has set anything since; `value`: the setting."""
        is_as_before = value == self.policy_before[0] if self.spec.policy else not share_of(self.spec, value)
        return time.time() >= self.leased_until and is_as_before


class Journal:
    """A canary's folder, held by one process."""

    def __init__(self, folder: Path, file: IO[bytes]) -> None:
        self.folder, self._file = folder, file
        self.pairs: list[Pair] = []

    @classmethod
    @contextlib.contextmanager
    def opened(cls, folder: Path) -> Iterator[Self]:
        """Hold the folder.

        Raises:
            InputError: it cannot be written or read, or another process holds it.

        """
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with held(folder / _PAIRS, HeldError(f"another process runs the canary of {str(folder)!r}")) as file:
            journal = cls(folder, file)
            journal.pairs = _pairs_of(without_torn_line(file)[0], folder / _PAIRS)
            yield journal

    def state(self) -> CanaryState | None:
        return read_state(self.folder)

    def write(self, state: CanaryState) -> CanaryState:
        with writing(self.folder):
            replace_file(self.folder / _STATE, msgspec.json.format(msgspec.json.encode(state)) + b"\n")
        return state

    def add(self, pairs: Sequence[Pair]) -> None:
        """Write pairs; once this returns they outlast a crash."""
        add_lines(self.folder, self._file, pairs)
        self.pairs.extend(pairs)

    def discard(self) -> None:
        """Forget a canary that has not begun."""
        (self.folder / _STATE).unlink(missing_ok=True)

    @property
    def differences(self) -> Numbers:
        return np.array([pair.difference for pair in self.pairs if pair.losses], dtype=float)

    @property
    def order(self) -> Order | None:
        """What somebody wants of the process that runs the canary."""
        return next((order for order in _ORDERS if (self.folder / order).exists()), None)


def read_pairs(folder: Path) -> list[Pair]:
    """Return the pairs of a canary, as far as they are written.

    Raises:
        InputError: a line is none.

    """
    path = folder / _PAIRS
    try:
        return _pairs_of(path.read_bytes(), path)
    except OSError:
        return []


def _pairs_of(content: bytes, path: Path) -> list[Pair]:
    return list(read_records(path, content, _decode_pair, "no pair of a canary"))


def read_state(folder: Path) -> CanaryState | None:
    """Return where a canary is; None: none was started in this folder.

    Raises:
        InputError: its file is damaged.

    """
    try:
        return msgspec.json.decode((folder / _STATE).read_bytes(), type=CanaryState)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(f"{folder / _STATE}: no state of a canary: {error}") from error


def ask_for(folder: Path, order: Order) -> None:
    """Have the process that runs the canary take the share back, or promote the candidate."""
    replace_file(folder / order, b"")
