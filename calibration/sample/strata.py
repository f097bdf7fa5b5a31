"""Which stratum a prompt belongs to, which half of the split, and how many of each stratum are chosen. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b

from calibration.sample.kind import kind_and_language
from calibration.sample.near import folded
from calibration.sample.prompt import Prompt
from calibration.sample.reservoir import RANGE, Member, Stratum

CALIBRATION, HELDOUT = "calibration", "heldout"
# Of every 5 texts, one may only ever be held out. The share is no option and the hash has no seed, so that a text that
# was once calibrated with is never held out by a later run.
HELDOUT_SHARE = 0.2
_SPLIT_KEY = b"bitladder split"
_ORDER_KEY = b"bitladder order"
_LENGTHS = (128, 512, 2048, 8192)


def stratum_of(prompt: Prompt) -> Stratum:
    kind, language = kind_and_language(prompt.text, prompt.turns)
    return Stratum(kind, language, length_of(len(prompt.text)), prompt.tier, prompt.group)


def length_of(characters: int) -> str:
    """Return the class of a length in characters, such as 128-511."""
    for low, high in zip((0, *_LENGTHS), _LENGTHS, strict=False):
        if characters < high:
            return f"{low}-{high - 1}"
    return f"{_LENGTHS[-1]}+"


def split_of(member: Member) -> str:
    """Return CALIBRATION or HELDOUT, from the content alone."""
    if member.split:
        return member.split
    digest = blake2b(folded(member.text), digest_size=8, key=_SPLIT_KEY).digest()
    return HELDOUT if int.from_bytes(digest, "big") % RANGE < HELDOUT_SHARE * RANGE else CALIBRATION


def choose(members: list[Member], seen: Mapping[Stratum, int], count: int) -> list[Member]:
    """Return `count` of the members: of each stratum as many as its share of what was seen, and one at least.

    What a stratum cannot give goes to the others.
    """
    by_stratum: dict[Stratum, list[Member]] = {}
    for member in sorted(members, key=lambda member: member.number):
        by_stratum.setdefault(member.stratum, []).append(member)
    weights = {stratum: seen[stratum] for stratum in by_stratum}
    quota = shares(weights, {stratum: len(members) for stratum, members in by_stratum.items()}, count)
    return [member for stratum in sorted(by_stratum) for member in by_stratum[stratum][: quota[stratum]]]


def mixed(members: list[Member]) -> list[Member]:
    """Return them in an order of which every beginning has kinds and groups in their proportion, and else is random.

    Whoever reads only the beginning of a set, as recipes do, reads some of everything.
    """
    kinds: dict[tuple[str, str], list[Member]] = {}
    for member in sorted(members, key=_shuffled):
        kinds.setdefault((member.stratum.kind, member.stratum.group), []).append(member)
    placed = [((at + 0.5) / len(item), member) for item in kinds.values() for at, member in enumerate(item)]
    return [member for _, member in sorted(placed, key=lambda item: (item[0], _shuffled(item[1])))]


def _shuffled(member: Member) -> bytes:
    """Return a sort key that is independent of the stratum; member numbers are not: a large stratum has lower ones."""
    return blake2b(member.number.to_bytes(8, "big"), digest_size=8, key=_ORDER_KEY).digest()


def shares(weights: Mapping[Stratum, int], limits: Mapping[Stratum, int], count: int) -> dict[Stratum, int]:
    """Divide `count` by weight, one by one to the stratum furthest below its share, up to each one's limit."""
    quotas = dict.fromkeys(weights, 0)
    # The heaviest strata first, so that with fewer places than strata it is the rarest that are left out.
    for stratum in sorted(weights, key=lambda stratum: (-weights[stratum], stratum))[:count]:
        quotas[stratum] = min(1, limits[stratum])
    for _ in range(min(count, sum(limits.values())) - sum(quotas.values())):
        open_ = [stratum for stratum in weights if quotas[stratum] < limits[stratum]]
        quotas[max(open_, key=lambda stratum: (weights[stratum] / (quotas[stratum] + 1), stratum))] += 1
    return quotas
