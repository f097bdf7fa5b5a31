"""Tokens of the echo engine and their ids."""

from __future__ import annotations

from workers.engines.echo_model.vocabulary import id_of, text_of


def test_an_id_reads_as_its_word() -> None:
    assert text_of([id_of("one"), id_of(" two")]) == "one two"


def test_a_word_that_would_fill_the_memory_is_not_kept() -> None:
    number = id_of("x" * 1_000_000)

    assert text_of([number]) == f" <{number}>"
    assert id_of(f" <{number}>") == number
