"""What a prompt was scored, and which tier a policy chose for it: the types that cross processes with a job."""

from __future__ import annotations

import re
from typing import Any

import msgspec

_NUMBER = re.compile(r"(?<!\w)-?\d[\d.e+-]*")
# A policy's name in decisions on requests that a candidate answers: behind it the model that was asked for, and a ">".
# No name of a policy or of a model has it.
_CANARY = "canary:"
# The reason where no policy chose: the floor is the tier of the queue that the job was put into.
QUEUE = "queue"


class Score(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """The features of one prompt. None: not computed, because the policy in force does not read it.

    bitladder/routing/features.py computes them and says what each one is.
    """

    entropy: float | None = None
    bytes: float | None = None
    characters: float | None = None
    words: float | None = None
    tokens: float | None = None
    tokens_per_byte: float | None = None
    bytes_per_character: float | None = None
    word_length: float | None = None
    line_length: float | None = None
    unique_words: float | None = None
    zlib_ratio: float | None = None
    repeated_4grams: float | None = None
    repeated_lines: float | None = None
    digits: float | None = None
    punctuation: float | None = None
    brackets: float | None = None
    uppercase: float | None = None
    spaces: float | None = None
    newlines: float | None = None
    non_ascii: float | None = None
    code_likeness: float | None = None
    question: float | None = None
    chat: float | None = None

    def __getitem__(self, name: str) -> float:
        """Return one feature.

        Raises:
            KeyError: it was not computed, or there is no such feature.

        """
        value = getattr(self, name, None)
        if not isinstance(value, int | float):
            raise KeyError(f"feature {name!r} was not computed: a policy must name what it reads")
        return value

    @property
    def values(self) -> dict[str, float]:
        """The features that were computed."""
        computed: dict[str, Any] = msgspec.to_builtins(self)
        return computed


_NO_SCORE = Score()


class Decision(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """The lowest tier that a request may be served at, and how it was chosen.

    It is stored with every job, as a list in this order: the names of its fields would cost a finished job 100 bytes.
    What a later version adds comes last, and is passed over by this one.
    """

    policy: str = ""  # its name; '': no policy chose, or one of a version that did not say
    version: int = 0  # of the policy: another version may decide otherwise
    floor: str = ""  # '': the queue's tier
    reason: str = QUEUE
    score: Score = _NO_SCORE  # the features that the policy read

    @property
    def label(self) -> str | None:
        """Policy and version in one word, as clients read it: article@1."""
        return f"{self.policy}@{self.version}" if self.policy else None

    @property
    def canary_of(self) -> str | None:
        """The model that was asked for, where its candidate was to answer."""
        if not self.policy.startswith(_CANARY):
            return None
        return self.policy.removeprefix(_CANARY).partition(">")[0]

    def as_canary_of(self, model: str) -> Decision:
        """Return the decision of a candidate's policy on a request for this model."""
        return msgspec.structs.replace(self, policy=f"{_CANARY}{model}>{self.policy}")

    @property
    def rule(self) -> str:
        """The reason without what was measured of the request: as few words as the policy has rules."""
        return _NUMBER.sub("#", self.reason)

    def shortened(self, max_chars: int) -> Decision:
        """Return the decision with no word longer than this: it may come from a record that anybody wrote."""
        words = {"policy": self.policy, "floor": self.floor, "reason": self.reason}
        cut = {name: f"{word[:max_chars]}…" for name, word in words.items() if len(word) > max_chars}
        return msgspec.structs.replace(self, **cut) if cut else self


UNDECIDED = Decision()


class OldDecision(msgspec.Struct, frozen=True):
    """A decision in a record of an earlier version, or of an RQ producer: its parts are fields of the record itself."""

    floor: str | None = None
    reason: str | None = None
    entropy: float | None = None
    pieces: int = 0  # of a streamed answer: its chunks

    @property
    def is_there(self) -> bool:
        return not (self.floor is None and self.reason is None and self.entropy is None)

    @property
    def decision(self) -> Decision:
        return Decision(floor=self.floor or "", reason=self.reason or QUEUE, score=Score(entropy=self.entropy))


def describe_decision(decision: Decision | None) -> dict[str, Any]:
    """Return a decision as the JSON of a job shows it; None: it ended without one."""
    if decision is None:
        return {"floor": None, "reason": None, "entropy": None, "policy": None, "features": {}}
    return {
        "floor": decision.floor or None,
        "reason": decision.reason,
        "entropy": decision.score.entropy,
        "policy": decision.label,
        "features": decision.score.values,
    }
