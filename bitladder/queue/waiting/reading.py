"""One reader's place in one stream of tokens: what comes next, what was missed, and what must be told. Pure."""

from __future__ import annotations

from bitladder.contract import Outcome, Piece, State
from bitladder.errors import BitladderError
from bitladder.queue.ends import Running


class StreamRestartedError(BitladderError):
    """The answer began anew after some of it had been read: its first execution was lost."""

    status = 503
    code = "stream_restarted"


class StreamGapError(BitladderError):
    """Some of the answer is neither told nor stored."""

    status = 500
    code = "stream_incomplete"


class Reading:
    """Follows the pieces of one execution: each once, in order, none left out."""

    def __init__(self, fence: int = 0, number: int = 0) -> None:
        """Begin behind that piece; fence 0: nothing was read yet, of no execution."""
        self._fence, self._number = fence, number

    def is_past(self, piece: Piece) -> bool:
        """Return whether the piece was read, or belongs to an execution that is over."""
        return (piece.fence, piece.number) <= (self._fence, self._number)

    def is_next(self, piece: Piece) -> bool:
        return piece.number == self._number + 1 and self._fence in (0, piece.fence)

    def lacks(self, outcome: Outcome) -> bool:
        """Return whether the answer has more pieces than were read."""
        return outcome.pieces > (0 if self._is_other(outcome.fence) else self._number)

    def start_of(self, item: Piece | Outcome | Running) -> tuple[int, int]:
        """Return the piece behind which the stored ones are to be read, as far as this item tells."""
        return (self._fence, self._number) if self._fence else (item.fence, 0)

    def take(self, piece: Piece) -> Piece:
        """Read one piece.

        Raises:
            StreamRestartedError: it is another execution's.
            StreamGapError: there is something between it and the last one.

        """
        if self._is_other(piece.fence):
            raise StreamRestartedError("the answer was interrupted and begun anew: send the request again")
        if not self.is_next(piece):
            raise _gap(self._number + 1, piece.number - 1)
        self._fence, self._number = piece.fence, piece.number
        return piece

    def close(self, outcome: Outcome) -> None:
        """Check that all of a finished answer was read; the end of any other one tells itself.

        Raises:
            StreamRestartedError: what was read is not what finished.
            StreamGapError: the last pieces are missing.

        """
        if outcome.state is not State.FINISHED:
            return
        if self._is_other(outcome.fence):
            raise StreamRestartedError("the answer was interrupted and begun anew: send the request again")
        if self.lacks(outcome):
            raise _gap(self._number + 1, outcome.pieces)

    def _is_other(self, fence: int) -> bool:
        return bool(self._fence and fence) and fence != self._fence  # an end that no execution came to has no fence


def _gap(first: int, last: int) -> StreamGapError:
    return StreamGapError(
        f"pieces {first} to {last} of the answer could not be kept: send the request again, or read the whole answer "
        "at GET /v1/jobs/<id> if the job has finished"
    )
