"""The values in a file, however they are framed, and what is broken in them; every byte is understood or lost."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import math
import random
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import pytest

from calibration.sample import json_values, window
from calibration.sample.json_values import Value, read_values
from calibration.sample.understood import Extent
from calibration.texts import decoding
from tests.conftest import ROOT

ONE, TWO = '{"prompt": "One"}', '{"prompt": "Two", "tags": [1, {"a": "}{"}]}'
BOTH = [json.loads(ONE), json.loads(TWO)]
PRETTY = "\n".join(json.dumps(value, indent=2) for value in BOTH)
Wrap = Callable[[bytes], bytes]


def read(content: str | bytes) -> tuple[list[Any], Extent]:
    extent = Extent()
    stream = io.BytesIO(content if isinstance(content, bytes) else content.encode())
    return [its.content if isinstance(its, Value) else its.reason for its in read_values(stream, extent)], extent


def values(content: str | bytes) -> list[Any]:
    return read(content)[0]


FRAMINGS = {
    "lines": f"{ONE}\n\n{TWO}",
    "CRLF": f"{ONE}\r\n{TWO}\r\n",
    "CR": f"{ONE}\r{TWO}\r",
    "nothing between": f"{ONE}{TWO}",
    "blanks between": f"{ONE}  {TWO}\t",
    "several on a line": f"{ONE}{TWO}\n",
    "pretty": PRETTY,
    "pretty, nothing between": PRETTY.replace("}\n{", "}{"),
    "a list": f"[{ONE}, {TWO}]",
    "a pretty list": json.dumps(BOTH, indent=1),
    "a list of lines": f"[\n{ONE},\n{TWO}\n]\n",
    "lists": f"[{ONE}]\n[{TWO}]",
    "lists, nothing between": f"[{ONE}][{TWO}]",
    "commas between": f"{ONE},{TWO}",
    "lines with commas": f"{ONE},\n{TWO},\n",
    "a comma too many in a list": f"[{ONE},\n{TWO},\n]",
    "commas too many in values": f"{ONE[:-1]},}}\n{TWO.replace(']', ',]')[:-1]}, }}",
    "commas too many in pretty values": PRETTY.replace('"\n', '",\n').replace("]\n", "],\n"),
    "record separators": f"\x1e{ONE}\n\x1e{TWO}\n",
    "NUL": f"{ONE}\0{TWO}\0",
    "marks of two files put together": f"\ufeff{ONE}\n\ufeff{TWO}",
}


@pytest.mark.parametrize("chunk", [2**18, 1, 3, 7, 20])
@pytest.mark.parametrize("wrap", [bytes, gzip.compress, lambda content: zip_in_two(content) + b"\0" * 600])
@pytest.mark.parametrize("framing", FRAMINGS)
def test_values_are_read_however_they_are_put_one_after_another(
    monkeypatch: pytest.MonkeyPatch, framing: str, wrap: Wrap, chunk: int
) -> None:
    for module, name in (
        (decoding, "CHUNK"),
        (window, "CHUNK"),
        (json_values, "_FIRST"),
        (decoding, "_READ"),
        (decoding, "_FED"),
    ):
        monkeypatch.setattr(module, name, chunk)

    found, extent = read(wrap(FRAMINGS[framing].encode()))

    assert found == BOTH
    assert extent.lost == 0


def zip_in_two(content: bytes) -> bytes:
    """Compress as a shipper does that appends to its file."""
    return gzip.compress(content[:9], mtime=0) + gzip.compress(content[9:], mtime=0)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-8-sig", "utf-8"])
@pytest.mark.parametrize("framing", ["lines", "pretty", "a list", "CR"])
def test_encodings_are_told_by_their_mark_or_their_zeros(encoding: str, framing: str) -> None:
    content = FRAMINGS[framing].replace("One", "Oné 😀").encode(encoding)

    found, extent = read(content)

    assert found == [{"prompt": "Oné 😀"}, BOTH[1]]
    assert extent.understood > 0.8 * len(content) - 10
    assert extent.lost == 0


def test_what_python_and_javascript_write_for_no_number_hides_no_prompt() -> None:
    found = values(
        '{"prompt": "One", "loss": NaN}\n{"prompt": "Two", "a": -Infinity}{"prompt": "Three", "a": [Infinity]}'
    )

    assert [its["prompt"] for its in found] == ["One", "Two", "Three"]
    assert math.isnan(found[0]["loss"])


def test_texts_are_not_changed_where_commas_are_taken_out() -> None:
    assert values('{"prompt": "[1,] {,} \\",]", "a": [1,],}') == [{"prompt": '[1,] {,} ",]', "a": [1]}]


@pytest.mark.parametrize(
    "torn",
    ['{"prompt": "cut o', 'mpt": "cut off"}', "[1, 2", '{"a":', '{"a": 1, "b": [', '{"a": {"b": 1}', '{"a": 1 "b": 2}',
     "{'a': 1}", "2026-11-24 12:00:00 INFO ready", "[2026-11-24] ready", '{"prompt": "\x00"}', "}", '{"a": "\\x"}'],
)  # fmt: skip
def test_a_torn_line_does_not_cost_those_behind_it(torn: str) -> None:
    found, extent = read(f"{ONE}\n{torn}\n{TWO}\n{ONE}\n")

    assert [its for its in found if isinstance(its, dict)] == [*BOTH, BOTH[0]]
    assert any(reason in found for reason in ("not JSON", "not an object"))
    assert 0 < extent.lost <= len(torn) + 1


@pytest.mark.parametrize("bad", ['{"a": oops}', '{"a": 1 "b": 2}', '{"a": "\\x"}', '{"a": [1 2]}', '{"a" 1}'])
@pytest.mark.parametrize("between", ["", " ", ",", "\r"])
def test_a_value_that_is_none_costs_itself_alone_also_without_lines(bad: str, between: str) -> None:
    found, extent = read(between.join([ONE, bad, TWO, bad, ONE]))

    assert found == [BOTH[0], "not JSON", BOTH[1], "not JSON", BOTH[0]]
    assert extent.lost == 2 * len(bad)
    assert extent.first
    assert extent.first.offset > len(ONE)


def test_behind_a_torn_value_the_next_one_is_found_where_two_objects_meet() -> None:
    found, extent = read('{"prompt": "torn' + ONE + TWO + ONE)

    assert found == ["not JSON", BOTH[1], BOTH[0]]
    assert extent.lost == len('{"prompt": "torn' + ONE)


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ("", ["empty file"]),
        (" \n", ["empty file"]),
        ("[]", ["empty file"]),
        ('{"prompt": "cut o', ["cut off"]),
        (PRETTY[:-4], [BOTH[0], "cut off"]),
        (f"[{ONE},\n{TWO}", [*BOTH, "list is cut off"]),
        (f"[{ONE},\n{TWO[:-4]}", [BOTH[0], "cut off"]),
        ('"a prompt"\n7\nnull', ["not an object"] * 3),
        ('["a prompt"]', ["not an object"]),
        ('{"prompt": "\xff"}'.encode("latin-1") + f"\n{ONE}".encode(), ["not UTF-8", BOTH[0]]),
        (f'{{"prompt": "\\ud800"}}\n{ONE}', ["not UTF-8", BOTH[0]]),
        ('{"prompt": "\\ud83d\\ude00"}', [{"prompt": "😀"}]),
        (f'{{"a": {"1" * 5000}}}\n{ONE}', ["not JSON", BOTH[0]]),
        (f"{'[' * 100_000}\n{ONE}", ["not JSON", BOTH[0], "list is cut off"]),
        (f'{{"a":{"[" * 100_000}\n{ONE}', ["not JSON", BOTH[0]]),
        (b"\x28\xb5\x2f\xfd" + bytes(100), ["Zstandard, which is not read"]),
        (b"PAR1" + bytes(100), ["Parquet, which is not read"]),
        (gzip.compress(gzip.compress(ONE.encode(), mtime=0), mtime=0), ["gzip in gzip, which is not read"]),
    ],
)
def test_what_is_no_value_says_why(content: str | bytes, reasons: list[Any]) -> None:
    assert values(content) == reasons


@pytest.mark.parametrize("framing", ["lines", "firehose", "list", "pretty"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_gzip_that_is_cut_off_gives_all_that_stands_before_the_cut(framing: str, share: float) -> None:
    rows = [{"prompt": f"{number} {number * number}"} for number in range(20_000)]
    whole = {
        "lines": "\n".join(map(json.dumps, rows)),
        "firehose": "".join(map(json.dumps, rows)),
        "list": json.dumps(rows),
        "pretty": json.dumps(rows, indent=2),
    }[framing]
    content = gzip.compress(whole.encode())
    cut = content[: int(share * len(content))]

    found, extent = read(cut)

    assert found[-1] == "gzip is cut off"
    plain = zlib.decompressobj(wbits=31).decompress(cut).decode()
    assert [its for its in found if isinstance(its, dict)] == rows[: plain.count("}")]
    assert extent.lost < 40


def test_a_gzip_that_is_damaged_gives_all_that_stands_before_the_damage() -> None:
    rows = [{"prompt": f"{number} {number * number}"} for number in range(20_000)]
    content = bytearray(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    content[len(content) // 4] ^= 255

    found, extent = read(bytes(content))

    good = [its for its in found if isinstance(its, dict) and its in rows[:6000]]
    assert found[-1] == "gzip is damaged"
    assert len(good) > 4000
    assert extent.lost > extent.understood


@pytest.mark.parametrize("behind", [b"", b"\n", b"trailer"])
def test_what_was_whole_before_a_gzip_s_wrong_checksum_is_kept(behind: bytes) -> None:
    content = bytearray(gzip.compress(f"{ONE}\n{TWO}".encode()))
    content[-6] ^= 255

    found, _ = read(bytes(content) + behind)

    assert found[0] == BOTH[0]
    assert found[-1] == "gzip is damaged"


def test_a_value_that_is_too_long_is_skipped_and_the_next_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "MAX_CHARS", 100)
    monkeypatch.setattr(json_values, "_FIRST", 10)
    long = '{"prompt": "%s"}' % ("x" * 950)

    assert values(f"{long}\n{TWO}\n") == ["too large", BOTH[1]]
    assert values(f"{long}{TWO}{ONE}") == ["too large", BOTH[1], BOTH[0]]
    assert values("[" + ",".join([ONE] * 500) + "]") == [BOTH[0]] * 500


@pytest.mark.parametrize("seed", range(60))
def test_random_damage_ends_in_no_error_and_every_byte_is_counted_once(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    for module, name in ((decoding, "CHUNK"), (window, "CHUNK"), (json_values, "_FIRST")):
        monkeypatch.setattr(module, name, chance.choice((5, 64, 2**18)))
    content = bytearray(chance.choice(list(FRAMINGS.values())).encode() * 20)
    for _ in range(chance.randrange(1, 30)):
        at = chance.randrange(len(content))
        content[at : at + chance.randrange(3)] = chance.choice(
            [b"", b'"', b"{", b"}", b"[", b"\n", b"\xff", b",", b"\\"]
        )

    found, extent = read(bytes(content))

    assert found
    assert extent.understood + extent.lost <= len(content)
    assert extent.understood + extent.lost > 0.5 * len(content)
    assert (extent.first is None) == (extent.lost == 0)


@pytest.mark.parametrize(
    "part",
    [
        '{"prompt": "x\n',
        '{"a": [1,2,{"b": ',
        '{"a":\n',
        "[\n",
        '{"a":1,}',
        '{"a":[1,],\n',
        '"',
        "[1,",
        '{"a":"}{',
        '}{"',
    ],
)
def test_no_input_takes_more_than_its_length_in_time(part: str) -> None:
    """What is torn is read again from the next line, but not for ever."""

    def seconds(count: int) -> float:
        begun = time.process_time()
        values(part * count + "\n" + ONE)
        return time.process_time() - begun

    least = seconds(2_000)

    assert seconds(16_000) < 20 * least + 1


def test_many_containers_that_are_never_closed_take_time_once() -> None:
    begun = time.process_time()

    found, _ = read("[\n" * 900 + "1," * 2_000_000 + "[" * 5000 + f"\n{ONE}\n")

    assert BOTH[0] in found or "not JSON" in found
    assert time.process_time() - begun < 15


SCRIPT = """
import io, resource, sys
from calibration.sample.json_values import read_values
from calibration.sample.understood import Extent

class Endless(io.RawIOBase):
    def __init__(self, part, times):
        self.part, self.times = part, times
    def read(self, size=-1):
        self.times -= 1
        return self.part if self.times >= 0 else b""

extent = Extent()
part = eval(sys.argv[1])
count = sum(1 for _ in read_values(Endless(part, int(sys.argv[2]) // len(part)), extent))
print(count, extent.understood, extent.lost, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize(
    ("part", "is_sound", "amount", "more_kib"),
    [
        ("b'{\"prompt\": \"' + b'x' * 5000 + b'\"}'", True, 40_000_000, 15_000),  # a value of 5 kB
        ("b'{\"a\": [1, 2, \"' + b'x' * 5000 + b'\"]},'", True, 40_000_000, 15_000),
        # One value of 16 Mi characters, a few times over.
        ("b'x' * 100_000", False, 150_000_000, 150_000),
        ("b'\"' + b'x' * 100_000", False, 150_000_000, 150_000),
        ('b\'{"a": "x\\\\\\\\\' * 1000', False, 150_000_000, 150_000),
    ],
)
def test_any_amount_takes_the_memory_of_one_value(part: str, is_sound: bool, amount: int, more_kib: int) -> None:
    def run(size: int) -> list[int]:
        command = [sys.executable, "-c", SCRIPT, part, str(size)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
        return list(map(int, done.stdout.split()))

    least, most = run(1_000_000), run(amount)

    assert most[3] - least[3] < more_kib
    assert (most[2] == 0) == is_sound
    assert (most[1] > 0.9 * amount) == is_sound


def test_a_mark_before_the_first_value_is_no_part_of_it() -> None:
    found, extent = read(codecs.BOM_UTF8 + b'{"prompt": oops}')

    assert found == ["not JSON"]
    assert extent.first
    assert extent.first.offset == len(codecs.BOM_UTF8) + len('{"prompt": ')
