"""A fair sample of the different texts in a stream of any length, in bounded memory.

Every text has a number that follows from its content and the seed, and of each stratum those with the least numbers
are kept: a uniform sample of its different texts, whatever their order and however often each comes (bottom-k
sampling). So a run that goes on after a crash ends where one without a crash would have. Only a text that is about to
be kept is compared with those that are, so the comparison is rare.
"""

from __future__ import annotations

import heapq
from hashlib import blake2b

import msgspec

from calibration.sample.near import NearIndex, Signature, folded, signature

# 63 bits, because the heap holds negatives and msgpack has 64 with a sign.
RANGE = 2**63
# Far more than kinds, languages, lengths and the tiers of a ladder make; a log that names other tiers all the time must
# not fill the memory.
MAX_STRATA = 1000
# Beside its text, what a member costs: signature, 16 places in the index, the structure itself.
_MEMBER_BYTES = 4096


class Stratum(msgspec.Struct, frozen=True, order=True):
    """Texts with the same kind, language, length, tier and group, to which quantization may be sensitive."""

    kind: str
    language: str
    length: str
    tier: str
    group: str = ""  # by the record's own field


class Member(msgspec.Struct, frozen=True):
    """A text of the sample."""

    number: int
    stratum: Stratum
    text: str
    split: str = ""
    was_cut: bool = False


class Layer(msgspec.Struct):
    """One stratum: how many came, and what is kept."""

    max_texts: int = msgspec.field(name="most")  # as it is stored
    seen: int = 0
    below: int = RANGE  # only numbers below are kept
    numbers: list[int] = []  # a heap of negatives: the greatest number first

    @property
    def different(self) -> int:
        """About how many different texts came: the more, the smaller the least numbers."""
        return round(len(self.numbers) * RANGE / self.below)


class Reservoir:
    """The sample so far."""

    def __init__(self, *, seed: int, max_texts: int, budget_bytes: int) -> None:
        self._key = str(seed).encode()
        self._max_texts = max_texts
        self._budget = budget_bytes
        self._near = NearIndex()
        self._size = 0
        self.layers: dict[Stratum, Layer] = {}
        self.members: dict[int, Member] = {}
        self.repeats = 0  # of texts that were in the sample at that time
        self.near = 0  # likewise

    def offer(self, stratum: Stratum, text: str, split: str = "", *, was_cut: bool = False) -> None:
        """Count a text, and keep it if its number is among the least of its stratum."""
        if len(self.layers) >= MAX_STRATA and stratum not in self.layers:
            stratum = Stratum(stratum.kind, "other", stratum.length, "other", "other" if stratum.group else "")
        layer = self.layers.setdefault(stratum, Layer(self._max_texts))
        layer.seen += 1
        fold = folded(text)
        number = int.from_bytes(blake2b(fold, digest_size=8, key=self._key).digest(), "big") % RANGE
        if number >= layer.below:
            return
        if number in self.members:
            self.repeats += 1
            return
        text_signature = signature(fold)
        if near_numbers := self._near.near(text_signature):
            self.near += 1
            if near_numbers[0] < number:
                return
            for number_near in near_numbers:
                self._remove(number_near)
        self._add(Member(number, stratum, text, split, was_cut), text_signature)

    def restore(self, layers: list[tuple[Stratum, Layer]], members: list[Member]) -> None:
        """Take over what another reservoir of the same seed had."""
        self.layers = dict(layers)
        for member in members:
            self.members[member.number] = member
            self._near.add(member.number, signature(folded(member.text)))
            self._size += _size(member)

    def _add(self, member: Member, text_signature: Signature) -> None:
        layer = self.layers[member.stratum]
        heapq.heappush(layer.numbers, -member.number)
        self.members[member.number] = member
        self._near.add(member.number, text_signature)
        self._size += _size(member)
        if len(layer.numbers) > layer.max_texts:
            self._drop_greatest(layer)
        while self._size > self._budget and self._shrink_largest():
            pass

    def _shrink_largest(self) -> bool:
        """Keep a quarter less of the stratum that holds most: what is left is as fair a sample, only smaller."""
        largest = max(self.layers.values(), key=lambda layer: len(layer.numbers))
        if len(largest.numbers) == 1:
            return False  # one text of each stratum: there is nothing left to save
        largest.max_texts = len(largest.numbers) * 3 // 4
        while len(largest.numbers) > largest.max_texts:
            self._drop_greatest(largest)
        return True

    def _drop_greatest(self, layer: Layer) -> None:
        number = -heapq.heappop(layer.numbers)
        layer.below = number
        self._forget(number)

    def _remove(self, number: int) -> None:
        """Take out a text that a near one with a lesser number replaces; `below` stays: what it kept out is gone."""
        layer = self.layers[self.members[number].stratum]
        layer.numbers.remove(-number)
        heapq.heapify(layer.numbers)
        self._forget(number)

    def _forget(self, number: int) -> None:
        self._size -= _size(self.members.pop(number))
        self._near.remove(number)


def _size(member: Member) -> int:
    # Python's texts take up to four bytes a character.
    return _MEMBER_BYTES + 4 * len(member.text) if not member.text.isascii() else _MEMBER_BYTES + len(member.text)
