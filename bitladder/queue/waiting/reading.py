"""One reader's place in one stream of tokens: what comes next, what was missed, and what must be told. Pure."""

from __future__ import annotations

from bitladder.contract import Chunk, Outcome, State
from bitladder.errors import BitladderError
from bitladder.queue.job_record import Running


class StreamRestartedError(BitladderError):
    """The answer began anew after some of it had been read: its first execution was lost."""

    status = 503
    code = "stream_restarted"


class StreamGapError(BitladderError):
    """Some of the answer is neither told nor stored."""

    status = 500
    code = "stream_incomplete"


class Reading:
    """Follows the chunks of one execution: each once, in order, none left out."""

    def __init__(self, fence: int = 0, number: int = 0) -> None:
        """Begin behind that chunk; fence 0: nothing was read yet, of no execution."""
        self._fence, self._number = fence, number

    def is_past(self, chunk: Chunk) -> bool:
        """Return whether the chunk was read, or belongs to an execution that is over."""
        return (chunk.fence, chunk.number) <= (self._fence, self._number)

    def is_next(self, chunk: Chunk) -> bool:
        return chunk.number == self._number + 1 and self._fence in (0, chunk.fence)

    def lacks(self, outcome: Outcome) -> bool:
        """Return whether the answer has more chunks than were read."""
        return outcome.chunks > (0 if self._is_other(outcome.fence) else self._number)

    def start_of(self, item: Chunk | Outcome | Running) -> tuple[int, int]:
        """Return the chunk behind which the stored ones are to be read, as far as this item tells."""
        return (self._fence, self._number) if self._fence else (item.fence, 0)

    def take(self, chunk: Chunk) -> Chunk:
        """Read one chunk.

        Raises:
            StreamRestartedError: it is another execution's.
            StreamGapError: there is something between it and the last one.

        """
        if self._is_other(chunk.fence):
            raise StreamRestartedError("the answer was interrupted and begun anew: send the request again")
        if not self.is_next(chunk):
            raise _gap(self._number + 1, chunk.number - 1)
        self._fence, self._number = chunk.fence, chunk.number
        return chunk

    def close(self, outcome: Outcome) -> None:
        """Check that all of a finished answer was read; the end of any other one tells itself.

        Raises:
            StreamRestartedError: what was read is not what finished.
            StreamGapError: the last chunks are missing.

        """
        if outcome.state is not State.FINISHED:
            return
        if self._is_other(outcome.fence):
            raise StreamRestartedError("the answer was interrupted and begun anew: send the request again")
        if self.lacks(outcome):
            raise _gap(self._number + 1, outcome.chunks)

    def _is_other(self, fence: int) -> bool:
        return bool(self._fence and fence) and fence != self._fence  # an end that no execution came to has no fence


def _gap(first: int, last: int) -> StreamGapError:
    return StreamGapError(
        f"chunks {first} to {last} of the answer could not be kept: send the request again, or read the whole answer "
        "at GET /v1/jobs/<id> if the job has finished"
    )
