"""bitladder/queue/signing.py: jobs and outcomes that somebody else wrote are refused."""

from __future__ import annotations

import msgspec
import pytest
from pydantic import SecretStr

from bitladder.contract import Outcome, State, encode_outcome
from bitladder.errors import ConfigError
from bitladder.queue.scripted_ends import SCRIPTED
from bitladder.queue.signing import Signer
from tests.conftest import make_settings

OLD, NEW = SecretStr("an old key of the fleet"), SecretStr("a new key of the fleet")
DONE = Outcome(state=State.FINISHED, status=200, body=msgspec.Raw(b'{"ok":true}'))


def test_a_job_is_genuine_as_it_was_signed_and_in_no_other_way() -> None:
    signer = Signer([OLD])
    mac = signer.job_mac("one", b"data").encode()

    assert signer.is_genuine("one", b"data", mac)
    assert not signer.is_genuine("one", b"Data", mac)
    assert not signer.is_genuine("two", b"data", mac)
    assert not signer.is_genuine("one", b"data", b"")
    assert not Signer([NEW]).is_genuine("one", b"data", mac)


def test_while_a_key_is_replaced_both_are_accepted() -> None:
    mac = Signer([OLD]).job_mac("one", b"data").encode()

    assert Signer([NEW, OLD]).is_genuine("one", b"data", mac)
    assert Signer([NEW, OLD]).job_mac("one", b"data") == Signer([NEW]).job_mac("one", b"data")


def test_without_keys_nothing_is_signed_and_everything_read() -> None:
    signer = Signer([])

    assert signer.job_mac("one", b"data") == ""
    assert signer.is_genuine("one", b"data", b"whatever")
    assert signer.decode("one", encode_outcome(DONE)) == DONE


def test_a_signed_outcome_is_read_for_its_own_job_alone() -> None:
    signer = Signer([OLD])
    stored = signer.encode("one", DONE)

    assert signer.decode("one", stored) == DONE
    assert signer.decode("two", stored) is None
    assert signer.decode("one", stored.replace(b"true", b"1234")) is None
    assert signer.decode("one", encode_outcome(DONE)) is None
    assert signer.decode_stored("two", stored).code == "corrupt_outcome"


def test_an_end_that_a_script_wrote_needs_no_signature_and_says_what_scripts_say() -> None:
    expired = Outcome(state=State.EXPIRED, status=504, code="deadline_exceeded", error="odd", attempts=2, queue_ms=7)
    forged = msgspec.structs.replace(expired, status=402, tier="int4", body=msgspec.Raw(b'{"ok":true}'))

    read = Signer([OLD]).decode("one", encode_outcome(expired))
    assert read == Signer([OLD]).decode("one", encode_outcome(forged))
    assert read == msgspec.structs.replace(SCRIPTED["deadline_exceeded"], attempts=2, queue_ms=7)


@pytest.mark.parametrize("code", ["engine_fault", "refused_by_engine", "cancelled", "deadline_exceeded", None])
def test_any_other_failure_needs_one(code: str | None) -> None:
    failed = Outcome(state=State.FAILED, status=500, code=code, error="words of a stranger")

    assert Signer([OLD]).decode("one", encode_outcome(failed)) is None
    assert Signer([OLD]).decode("one", Signer([OLD]).encode("one", failed)) == failed


@pytest.mark.parametrize("stored", [b"", b"{", b"\x80\x04.", b"null", b"[" * 100_000, b'{"state":"odd","status":1}'])
def test_what_is_no_outcome_reads_as_none(stored: bytes) -> None:
    assert Signer([]).decode("one", stored) is None
    assert Signer([OLD]).decode("one", stored) is None


def test_a_short_key_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match=r"queue\.secrets: must have at least 16 characters each") as error:
        make_settings("redis://127.0.0.1:1/0", queue__secrets=["tooshort"])

    assert "tooshort" not in str(error.value)


def test_live_settings_count_only_where_one_of_us_has_signed_them() -> None:
    document, signer = b'{"revision":1}', Signer([NEW, OLD])
    stored = Signer([OLD]).encode_document(document)

    assert signer.decode_document(stored) == document
    assert signer.decode_document(stored.replace(b"1}", b"2}")) is None
    assert signer.decode_document(document) is None
    assert Signer([]).decode_document(Signer([]).encode_document(document)) == document
