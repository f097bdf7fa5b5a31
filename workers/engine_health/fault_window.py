"""How the last requests of an engine ended: well, or by whose fault not. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import msgspec

from workers.engine_health.blame import Blame, FaultyAttempt

# The fault ratio is that of the last so many requests.
WINDOW = 500
# Fewer faults than this are never too many: one fault among the first three requests says nothing.
MIN_FAULTS = 5
# Of jobs that broke here only: an engine that breaks so many, and more than it answers, is restarted in any case.
MANY_FAULTS = 20


class _End(msgspec.Struct, eq=False):
    """How one request ended badly."""

    faulty: FaultyAttempt | None = None  # of the job, where there was one: its prompt may be to blame
    blame: Blame | None = None  # None: not known yet

    @property
    def is_first(self) -> bool:
        """Whether no other engine is known to have broken on it."""
        return self.blame is not Blame.PROMPT and (self.faulty is None or self.faulty.attempt == 1)


_SOUND = _End()


class FaultWindow:
    """Counts faults. A job's fault counts against the engine once it is known to be the engine's."""

    def __init__(self) -> None:
        self._ends: deque[_End] = deque(maxlen=WINDOW)

    def note(self, *, is_fault: bool, faulty: FaultyAttempt | None = None) -> None:
        """Note the end of a request; `faulty` is the job's attempt where a job broke."""
        self._ends.append(_End(faulty, None if faulty else Blame.ENGINE) if is_fault else _SOUND)

    def learn(self, known: Mapping[FaultyAttempt, Blame]) -> None:
        """Take in whose faults some were."""
        for end in self._undecided():
            end.blame = known.get(end.faulty) if end.faulty else None

    def undecided(self) -> list[FaultyAttempt]:
        """Return the attempts of which that is not known, oldest first."""
        return [end.faulty for end in self._undecided() if end.faulty]

    def exceeds(self, ratio: float) -> bool:
        """Return whether a larger share of the requests broke by the engine's fault."""
        return self._is_above(self._by_engine(), ratio)

    def may_exceed(self, ratio: float) -> bool:
        """Return whether the share would be larger if all undecided faults were the engine's."""
        return self._is_above(self._by_engine() + len(self._undecided()), ratio)

    def is_broken(self) -> bool:
        """Return whether more jobs broke than not, and so many that it cannot be their prompts.

        Jobs that broke on another tier before do not count: a higher tier may get few others.
        """
        faults = sum(end.is_first for end in self._ends if end is not _SOUND)
        return faults >= MANY_FAULTS and faults > sum(end is _SOUND for end in self._ends)

    def _undecided(self) -> list[_End]:
        return [end for end in self._ends if end is not _SOUND and end.blame is None]

    def _by_engine(self) -> int:
        return sum(end.blame is Blame.ENGINE for end in self._ends)

    def _is_above(self, faults: int, ratio: float) -> bool:
        return faults >= MIN_FAULTS and faults > ratio * len(self._ends)
