"""What became of one request, as its client saw it."""

from __future__ import annotations

from dataclasses import dataclass, field

from bitladder.cli.ops.loadtest.load_plan import LoadRequest

# Of requests that were under way when the test ended, and of those that no intake answered.
UNFINISHED, NO_ANSWER = "unfinished", "no_answer"


@dataclass(slots=True)
class Sample:
    """Times are seconds since the beginning."""

    request: LoadRequest
    due_s: float  # when it should have been sent: what a user's wait begins with
    sent_s: float
    end_s: float = 0.0
    first_s: float | None = None  # its first token
    gaps_s: list[float] = field(default_factory=list)  # between tokens
    status: int = 0
    code: str = ""  # why there is no answer
    message: str = ""  # the same in words
    job_id: str = ""
    tier: str = ""
    floor: str = ""
    overflowed_from: str = ""
    queue_s: float | None = None
    cost: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def is_answered(self) -> bool:
        return not self.code

    @property
    def is_refused(self) -> bool:
        return bool(self.code) and self.status in (429, 503)

    @property
    def latency_s(self) -> float:
        """From the intended time of sending: a client that was late to send has waited, too."""
        return self.end_s - self.due_s

    @property
    def ttft_s(self) -> float | None:
        return None if self.first_s is None else self.first_s - self.due_s
