"""The kinds of text and their languages, on the packaged texts, the demo's prompts and a few of their own."""

from __future__ import annotations

import json

import pytest

from calibration.sample.kind import KINDS, kind_and_language
from calibration.texts.packaged import calibration_texts, heldout_texts
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("text", "kind", "language"),
    [
        ("def area(r):\n    return 3.14 * r ** 2\n", "code", "python"),
        ("SELECT name, total\nFROM orders\nWHERE total > 10", "code", "sql"),
        ("#!/bin/sh\nfor f in *; do echo $f; done", "code", "shell"),
        ("#include <stdio.h>\nint main(void) {\n  return 0;\n}", "code", "c"),
        ('{"name": "Ada", "born": 1815} -> as YAML', "json", "-"),
        ('[\n  {"id": 1},\n  {"id": 2}\n]', "json", "-"),
        ("<!doctype html>\n<html><body>Hi</body></html>", "markup", "-"),
        ("2024-05-11 08:14:02 INFO started\n2024-05-11 08:14:03 WARN slow", "log", "-"),
        ("User: hello\nAssistant: Hello, how can I help you?", "chat", "en"),
        ("Write a Python function that returns whether a string is a palindrome.", "prose", "en"),
        ("Was ist der Unterschied zwischen einem Fluss und einem Bach?", "prose", "de"),
        ("Quelle est la différence entre un fleuve et une rivière ?", "prose", "fr"),
        ("河と川の違いは何ですか", "prose", "ja"),
        ("河流和小溪有什么区别", "prose", "zh"),
        ("Какая разница между рекой и ручьём?", "prose", "ru"),
        ("Hamlet?", "prose", "-"),
    ],
)
def test_a_text_is_told_by_its_looks(text: str, kind: str, language: str) -> None:
    assert kind_and_language(text) == (kind, language)


def test_a_conversation_is_chat_whatever_it_is_about() -> None:
    assert kind_and_language("def f(x):\n    return x\nWhat is this for?", turns=3)[0] == "chat"


def test_the_packaged_texts_have_every_kind() -> None:
    kinds = {kind_and_language(text)[0] for text in calibration_texts() + heldout_texts()}

    assert kinds == set(KINDS)


def test_prompts_written_in_prose_are_not_taken_for_code() -> None:
    lines = (ROOT / "bitladder" / "cli" / "demo" / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    prose = [entry["prompt"] for entry in map(json.loads, lines) if entry["kind"] in ("prose", "chat", "batch")]

    assert {kind_and_language(text)[0] for text in prose} == {"prose"}
