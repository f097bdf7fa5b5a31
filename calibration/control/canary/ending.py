"""How a canary ends: its share is taken back or made everything, whatever breaks on the way."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from calibration.control.canary.canary_stack import CanaryStack
from calibration.control.canary.comparing import Pair
from calibration.control.canary.eprocess import Decision
from calibration.control.canary.pair_journal import CanaryState, Journal, Phase
from calibration.control.canary.spec import Spec
from calibration.errors import CalibrationError, ProposalRefusedError

# How long the candidate's last jobs may take, and how long an intake that does not answer is asked.
_DRAIN_S, _GIVE_UP_S = 30.0, 3600.0
# Every intake goes by a live setting after two seconds; until then it still gives the candidate requests.
_TAKEN_S = 2.5
_PAUSE_S = 0.5


class End(NamedTuple):
    """How a canary ends."""

    phase: Phase
    why: str
    decision: str = Decision.UNDECIDED


class Retry(NamedTuple):
    """How an intake that does not answer is asked again."""

    pause_s: float
    say: Callable[[str], None]


def end_canary(journal: Journal, steering: CanaryStack, state: CanaryState, end: End, retry: Retry) -> CanaryState:
    """Write what is to follow from the end, do it, and write that it is done."""
    state = msgspec.structs.replace(state, why=end.why, decision=str(end.decision), ending=end.phase)
    touched = state.touched
    with contextlib.suppress(CalibrationError):  # a full disk must not keep the share given
        journal.write(state)
    if end.phase == "rolled back":
        _persist(lambda: steering.take_back(state.spec, state.policy_before, end.why), retry)
        _drain(steering, state.spec)
    elif end.phase == "promoted":
        steering.promote(state.spec, end.why, state.lapsed)
    with contextlib.suppress(CalibrationError):
        if end.phase != "promoted" or touched is None:  # then all requests are its
            touched = touched_by(journal.pairs, steering, state)
    now, is_over = time.time(), end.phase != "awaits promotion"
    return journal.write(
        msgspec.structs.replace(
            state,
            phase=end.phase,
            ending=None,
            decided_at=state.decided_at or now,
            ended_at=now if is_over else None,
            fine_after=state.fine_after if is_over else len(journal.differences),
            touched=touched,
        )
    )


def _persist(take_back: Callable[[], None], retry: Retry) -> None:
    """Take a share back though the intake does not answer now: it must not stay because of that.

    Raises:
        CalibrationError: it has not answered for an hour; the same call goes on.

    """
    end_s, is_said = time.monotonic() + _GIVE_UP_S, False
    while True:
        try:
            return take_back()
        except ProposalRefusedError:
            raise
        except CalibrationError as error:
            if time.monotonic() > end_s:
                raise
            if not is_said:
                retry.say(f"the share could not be taken back yet, trying again for an hour: {error}")
            is_said = True
            time.sleep(retry.pause_s)


def _drain(steering: CanaryStack, spec: Spec) -> None:
    """Wait until every intake has taken the share back, and for the candidate's last jobs: they are counted."""
    time.sleep(_TAKEN_S if spec.candidate else 0.0)
    end_s = time.monotonic() + _DRAIN_S
    with contextlib.suppress(CalibrationError):
        while spec.candidate and steering.running(spec) and time.monotonic() < end_s:
            time.sleep(_PAUSE_S)


def touched_by(pairs: Sequence[Pair], steering: CanaryStack, state: CanaryState) -> int:
    """Return how many requests of others the candidate was given, at least."""
    measuring = sum(pair.is_asked for pair in pairs)
    (ended, drawn), (ended_before, drawn_before) = steering.counts(state.spec), state.counts_before
    return max(ended - ended_before - measuring, drawn - drawn_before if drawn >= drawn_before else drawn)
