"""workers/engines/hardware/memory.py: what the next start asks for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from workers.engines.hardware.memory import KILLED, Allowance

TOO_LARGE = (
    "Free memory on device cuda:0 (1/2 GiB) on startup is less than desired GPU memory utilization (0.9, 1.8 GiB)."
)
TOO_LONG = "9.0 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB)."


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 8192}', encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("given", "said", "args"),
    [
        ((), TOO_LARGE, ["--gpu-memory-utilization", "0.782"]),
        (("--gpu-memory-utilization", "0.5"), TOO_LARGE, ["--gpu-memory-utilization", "0.425"]),
        (
            ("--gpu-memory-utilization=0.5",),
            "torch.OutOfMemoryError: CUDA out of memory.",
            ["--gpu-memory-utilization", "0.425"],
        ),
        ((), KILLED, ["--gpu-memory-utilization", "0.782"]),
        ((), "is less than desired CPU memory utilization (0.9, 9 GiB)", ["--gpu-memory-utilization", "0.782"]),
        ((), TOO_LONG, ["--max-model-len", "4096"]),
        (("--max-model-len", "2k"), TOO_LONG, ["--max-model-len", "1000"]),
        (("--max-model-len", "auto"), TOO_LONG, ["--max-model-len", "4096"]),
        ((), TOO_LONG + " the estimated maximum model length is 1360.", ["--max-model-len", "1360"]),
        ((), "No available memory for the cache blocks.", ["--max-model-len", "4096"]),
    ],
)
def test_the_next_start_asks_for_less_of_what_there_was_too_little(
    checkpoint: Path, given: tuple[str, ...], said: str, args: list[str]
) -> None:
    allowance = Allowance(given, checkpoint)
    assert allowance.args() == []

    assert allowance.lower(f"a line\nValueError: {said}\na traceback")
    assert allowance.args() == args


def test_what_was_lowered_stays_lowered_while_the_other_is(checkpoint: Path) -> None:
    allowance = Allowance((), checkpoint)

    assert allowance.lower(TOO_LARGE)
    assert allowance.lower(TOO_LONG)
    assert allowance.as_text() == "--gpu-memory-utilization 0.782 --max-model-len 4096"


@pytest.mark.parametrize(
    ("given", "said", "least"),
    [
        (("--gpu-memory-utilization", "0.15"), TOO_LARGE, 0.1),
        (("--max-model-len", "2048"), TOO_LONG, 512),
    ],
)
def test_it_never_asks_for_less_than_is_of_use(
    checkpoint: Path, given: tuple[str, ...], said: str, least: float
) -> None:
    allowance = Allowance(given, checkpoint)
    while allowance.lower(said):
        assert float(re.findall(r"[0-9.]+", allowance.as_text())[0]) >= least
    assert allowance.args()


def test_it_does_not_load_the_weights_for_ever(checkpoint: Path) -> None:
    allowance = Allowance(("--max-model-len", "10M"), checkpoint)

    assert [allowance.lower(TOO_LONG) for _ in range(10)] == [True] * 8 + [False] * 2


def test_a_start_that_failed_for_another_reason_is_not_tried_with_less(checkpoint: Path) -> None:
    assert not Allowance((), checkpoint).lower("ValueError: unknown argument --colour")
