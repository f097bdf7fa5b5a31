"""One reader's place in one stream of tokens: which chunk comes next, and which were missed. No I/O."""

from __future__ import annotations

from bitladder.contract import Chunk, Outcome, State
from bitladder.errors import BitladderError
from bitladder.queue.job_record import Running


class StreamRestartedError(BitladderError):
    """The answer began anew after some of it had been read: its first execution was lost."""

    status = 503
    code = "stream_restarted"


class StreamGapError(BitladderError):
    """Some of the answer was neither received nor stored."""

    status = 500
    code = "stream_incomplete"


class Reading:
    """Follows the chunks of one answer: each once, in order, none left out.

    An answer is one execution's, or that of several of which each went on with the one before (`Chunk.after`).
    """

    def __init__(self, fence: int = 0, number: int = 0) -> None:
        """Begin behind that chunk; fence 0: no chunk of any execution was read yet."""
        self._fence, self._number = fence, number

    def is_past(self, chunk: Chunk) -> bool:
        """Return whether the chunk was read, or belongs to an execution that is over."""
        return (chunk.fence, chunk.number) <= (self._fence, self._number)

    def is_next(self, chunk: Chunk) -> bool:
        """Return whether the chunk comes next in its execution."""
        return chunk.number == self._number + 1 and self._fence in (0, chunk.fence)

    def lacks(self, outcome: Outcome) -> bool:
        """Return whether the answer has more chunks than were read."""
        return outcome.chunks > (0 if self._is_other(_last_fence(outcome)) else self._number)

    def start_of(self, item: Chunk | Outcome | Running) -> tuple[int, int]:
        """Return the chunk behind which stored chunks are to be read, now that this item has come."""
        if self._fence:
            return self._fence, self._number
        return (_last_fence(item) if isinstance(item, Outcome) else item.fence), 0

    def begins_before(self, chunk: Chunk) -> bool:
        """Return whether an earlier execution has begun the answer of which nothing was read, and this chunk is."""
        return not self._fence and bool(chunk.after)

    def take(self, chunk: Chunk) -> Chunk:
        """Read one chunk.

        Raises:
            StreamRestartedError: it is another answer's.
            StreamGapError: a chunk between it and the last one is missing.

        """
        is_next = chunk.number == self._number + 1
        if self._is_other(chunk.fence) and not (is_next and chunk.after == self._fence):
            raise _restarted()
        if not is_next:
            raise _gap(self._number + 1, chunk.number - 1)
        self._fence, self._number = chunk.fence, chunk.number
        return chunk

    def close(self, outcome: Outcome) -> None:
        """Check that all of a finished answer was read. The outcome of any other job says by itself that it failed.

        Raises:
            StreamRestartedError: what was read is not what finished.
            StreamGapError: the last chunks are missing.

        """
        if outcome.state is not State.FINISHED:
            return
        # More than it has: the server has lost chunks that were read, and a later execution went on without them.
        if self._is_other(_last_fence(outcome)) or self._number > outcome.chunks:
            raise _restarted()
        if self.lacks(outcome):
            raise _gap(self._number + 1, outcome.chunks)

    def _is_other(self, fence: int) -> bool:
        return bool(self._fence and fence) and fence != self._fence  # an outcome that is of no execution has no fence


def _last_fence(outcome: Outcome) -> int:
    return outcome.streamed_by or outcome.fence


def _restarted() -> StreamRestartedError:
    return StreamRestartedError("the answer was interrupted and begun anew: send the request again")


def _gap(first: int, last: int) -> StreamGapError:
    return StreamGapError(
        f"chunks {first} to {last} of the answer could not be kept: send the request again, or read the whole answer "
        "at GET /v1/jobs/<id> if the job has finished"
    )
