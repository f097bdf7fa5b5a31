"""What Lua and Python share stands in one place: constants, and the outcomes that scripts write by themselves."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import redis

from bitladder import script_constants
from bitladder.contract import decode_outcome
from bitladder.queue import scripted_ends
from bitladder.queue.calls.end import RequeueReason
from bitladder.queue.run_script import NAMES, source
from bitladder.queue.scripted_ends import SCRIPTED, lua_ends
from bitladder.script_constants import RQ_STATUS, lua_constants, quoted

LUA = sorted((Path(scripted_ends.__file__).parent / "scripts").rglob("*.lua"))
SHARED = sorted(script_constants._SHARED)


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_constant_is_used_by_a_script_and_made_by_none(name: str) -> None:
    texts = [path.read_text(encoding="utf-8") for path in LUA]

    assert any(re.search(rf"\b{name}\b", text) for text in texts)
    assert not any(re.search(rf"local [^=\n]*\b{name}\b[^=\n]*=", text) for text in texts)


def test_a_script_gets_the_constants_that_it_names_and_no_others() -> None:
    for name in NAMES:
        text = source(name)
        for shared in SHARED:
            uses = re.findall(rf"\b{shared}\b", text)
            assert len(uses) != 1, f"{shared} stands in {name} and is not used"


def test_constants_mean_the_same_in_lua(store: redis.Redis) -> None:
    escaped = r"string.gsub('a b\nc%', UNSAFE_IN_LINE, '_')"
    text = f"return {{MAX_ID, MAX_TROUBLE, DEADLINE_PASSED, RQ_STATUS['cancelled'], {escaped}}}"

    assert store.eval(lua_constants(text) + text, 0) == [
        script_constants.MAX_ID,
        script_constants.MAX_TROUBLE,
        script_constants.DEADLINE_PASSED.encode(),
        RQ_STATUS["cancelled"].encode(),
        b"a_b_c_",
        3,
    ]
    assert store.eval(f"return {quoted(chr(39) + chr(92) + chr(10))}", 0) == b"'\\\n"


@pytest.mark.parametrize("code", SCRIPTED)
def test_a_script_writes_the_outcome_that_python_knows(store: redis.Redis, code: str) -> None:
    usual, other = (
        store.eval(lua_ends(text) + text, 0, code)
        for text in (
            "return scripted_end(ARGV[1], nil, ',\"attempts\":3')",
            "return scripted_end(ARGV[1], 'it says \"no\"')",
        )
    )

    assert decode_outcome(usual) == msgspec.structs.replace(SCRIPTED[code], attempts=3)
    assert decode_outcome(other) == msgspec.structs.replace(SCRIPTED[code], error='it says "no"')


def test_every_code_that_a_script_ends_a_job_with_is_known() -> None:
    texts = "\n".join(path.read_text(encoding="utf-8") for path in LUA)
    codes = set(re.findall(r"""(?:scripted_end|refuse)\('(\w+)'""", texts))

    assert codes == set(SCRIPTED)
    assert '"state"' not in texts, "an outcome is written by hand"


def test_scripts_know_every_reason_of_a_requeue_and_no_other() -> None:
    texts = "\n".join(path.read_text(encoding="utf-8") for path in LUA)
    compared = set(re.findall(r"\breason [=~]= '(\w+)'", texts))

    assert compared
    assert compared <= set(RequeueReason)
    assert [reason for reason in RequeueReason if not re.search(rf"'{reason}'|\b{reason} = '", texts)] == []
