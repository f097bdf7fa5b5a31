"""Personal data and secrets of a prompt do not leave the intake's memory."""

from __future__ import annotations

import time

import pytest

from dispatcher.capture.redact import redact


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("mail bob.o'neil+x@mail.example.co.uk now", "mail name@example.com now"),
        ("use sk-proj-abcDEF1234567890abcd here", "use <key> here"),
        ("AKIAIOSFODNN7EXAMPLE", "<key>"),
        ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "<key>"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmN", "<key>"),
        ("Authorization: Bearer abcdef0123456789", "Authorization: Bearer <key>"),
        ('{"password": "hunter2hunter2"}', '{"password": "<key>"}'),
        ("my password is hunter2hunter2", "my password is <key>"),
        ("postgres://admin:s3cret@db/prod", "postgres://<key>@db/prod"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- ok", "<key> ok"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE, and then it is cut", "<key>"),
        ("d41d8cd98f00b204e9800998ecf8427e", "<key>"),
        ("4111 1111 1111 1111", "0000 0000 0000 0000"),
        ("4111-1111-1111-1111.", "0000-0000-0000-0000."),
        ("+49 (30) 123-45 67", "+00 (00) 000-00 00"),
        ("call 555-123-4567", "call 000-000-0000"),
        ("from 192.168.178.201", "from 000.000.000.000"),
        ("IBAN DE89370400440532013000", "IBAN DE00000000000000000000"),
    ],
)
def test_addresses_keys_passwords_and_long_numbers_go(text: str, kept: str) -> None:
    assert redact(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "What is the capital of Portugal?",
        "def test_a_very_long_function_name_with_2_parts(order_id: int) -> None:",
        "on 2024-05-11 08:14:02,113 it was 21.5 degrees in room 4711",
        "x = 3.14159 * 1024",
        "the password must be long, and a token is a word",
        "internationalization_of_the_application_settings",
    ],
)
def test_what_calibration_needs_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "chunk",
    ["1", "a", "a.", "a@", "-----BEGIN PRIVATE KEY-----", "eyJaaaaaaaaa.", "://", "1 ", "password", "://a:", "sk-"],
)
def test_no_text_makes_it_slow(chunk: str) -> None:
    start = time.thread_time()

    redact(chunk * (40_000 // len(chunk)))

    # A rule that backtracks takes minutes for this; linear ones take some ten milliseconds.
    assert time.thread_time() - start < 2
