"""What one reader of a stream has read: each chunk must be the next one, of its execution or of one that goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from tests.chaos.traffic.history import Seen
from tests.chaos.traffic.orders import Order

EVENT_ID = re.compile(r"(\d+)-(\d+)-(\d+)")
# Of an event that ends a stream and says nothing of the job: its reader may read on.
NO_OUTCOME = ("await_timeout", "queue_unreachable", "not_ready", "intake_closing", "stream_restarted")
# Of one that says that some of the answer, or the whole job, is not stored any more.
GONE = ("stream_incomplete", "job_lost")
STATES = {"cancelled": "cancelled", "deadline_exceeded": "expired"}


class Reading:
    """Takes the events of one stream; goes on where a connection was cut, and begins anew where it is told to."""

    def __init__(self, order: Order, by: str) -> None:
        self._order, self._by, self._words = order, by, order.words
        self.last_id = ""  # for Last-Event-ID
        self.outcome: Seen | None = None
        self.gone: str | None = None  # why there is nothing more to read
        self.restarts = 0
        self.found: list[str] = []
        # What is only right if the server forgot something in this time (wall clock): an execution that is read again.
        self.went_back: list[tuple[float, float, str]] = []
        self._since_s = 0.0  # when the execution that is read was begun to be read
        self._texts: list[str] = []
        self._answer_id: str | None = None
        self._fence = 0  # of the execution that is read
        self._number = self._event = 0  # of the last chunk, and of the last event in it

    @property
    def is_over(self) -> bool:
        """Whether the stream has said its last word."""
        return self.outcome is not None or self.gone is not None

    def take(self, event: dict[str, Any], event_id: str = "") -> None:
        """Take one event; its id is '' where there is none, as in the answer to a request itself."""
        if "error" in event:
            self._end(event["error"])
            return
        if event_id:
            self._place(event_id)
        self.last_id = event_id
        choice = event["choices"][0]
        text = choice["delta"].get("content", "") if "delta" in choice else choice["text"]
        self._expect("FOREIGN", "id", event["id"], self._answer_id or event["id"])
        self._answer_id = event["id"]
        if not text:  # a chat's first chunk has the role alone
            return
        at = len(self._texts)
        wanted = " " * bool(at) + self._words[at] if at < len(self._words) else "no more"
        self._expect("CHUNK", f"chunk {at + 1}", text, wanted)
        self._texts.append(text)

    def done(self) -> None:
        """Take [DONE]: everything must have been read by now."""
        self._expect("HOLE", "length", len(self._texts), len(self._words))
        text = None if self.found else "".join(self._texts)  # of one that is not whole enough is said
        self.outcome = Seen(by=self._by, state="finished", text=text)

    def _end(self, error: dict[str, Any]) -> None:
        code = error["code"]
        if code in GONE:
            self.gone = code
        elif code not in NO_OUTCOME:
            self.outcome = Seen(by=self._by, state=STATES.get(code, "failed"), code=code)
        elif code == "stream_restarted":  # read from the start, whichever execution that is
            self.restarts += 1
            self.last_id, self._texts, self._answer_id, self._number = "", [], None, 0

    def _place(self, event_id: str) -> None:
        found = EVENT_ID.fullmatch(event_id)
        if found is None:
            self.found.append(f"CHUNK: {self._order.mark}: {self._by} was given the event id {event_id!r}")
            return
        fence, number, place = map(int, found.groups())
        # Of an answer that can be repeated a later execution may send the rest.
        goes_on = self._order.is_repeatable and fence > self._fence and (number, place) == (self._number + 1, 1)
        if self._number and not goes_on:
            self._expect("GLUED", f"execution behind {self.last_id}", fence, self._fence)
        elif not self._number and fence <= self._fence:  # what came between was forgotten, or never was
            what = f"began anew with execution {fence} behind {self._fence}"
            self.went_back.append((self._since_s, time.time(), self._sentence("GLUED", what)))
        at = f"{self._fence}-{self._number}-{self._event}"
        if (number, place) != (self._number, self._event + 1):
            self._expect("GAP", f"event behind {at}", (number, place), (self._number + 1, 1))
        if not self._number:
            self._since_s = time.time()
        self._fence, self._number, self._event = fence, number, place

    def _expect(self, word: str, what: str, got: object, wanted: object) -> None:
        if got != wanted:
            self._say(word, f"{what} is {got!r}, not {wanted!r}")

    def _say(self, word: str, what: str) -> None:
        if not any(said.startswith(word) for said in self.found):  # the first wrong chunk moves all others
            self.found.append(self._sentence(word, what))

    def _sentence(self, word: str, what: str) -> str:
        return f"{word}: {self._order.delivery} {self._order.mark}, read by {self._by}: {what}"


def events_in(lines: Sequence[bytes]) -> tuple[str, bytes]:
    """Return id and data of one block of lines, read as WHATWG's HTML says (section 9.2)."""
    event_id, data = "", []
    for line in lines:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"id":
            event_id = value.decode()
        elif name == b"data":
            data.append(value)
    return event_id, b"\n".join(data)
