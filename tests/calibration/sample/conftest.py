"""A moto server per session, prompts that differ, and a run of the sampler."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import httpx2
import pytest

from calibration.sample.bookmark import SampleProgress
from calibration.sample.run_sampling import Sampled, SampleOptions, sample
from calibration.sample.source import Source
from tests.s3_server import s3_server

RunSample = Callable[..., Sampled]
WORDS = [
    word
    for line in (
        "the of and river ticket window bread order engine lamp garden stone paper winter market bridge",
        "letter table kitchen music doctor teacher holiday island forest machine museum bicycle journey village",
    )
    for word in line.split()
]


def prompts(count: int, seed: int = 1) -> list[str]:
    """Return texts that are not near each other."""
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=12)) + f" {chance.choice(WORDS)}{chance.random()}" for _ in range(count)]


def write_jsonl(path: Path, texts: Iterable[str], **more: Any) -> Path:  # noqa: ANN401  (JSON)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": text, **more}) + "\n" for text in texts), encoding="utf-8")
    return path


def read_texts(folder: Path, split: str) -> list[str]:
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return [json.loads(line)["text"] for line in lines]


def skipped(folder: Path) -> dict[str, str]:
    lines = (folder / "skipped.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    return {its["where"]: its["reason"] for its in map(json.loads, lines)}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "sets" / "mine"


@pytest.fixture
def run_sample(out: Path) -> RunSample:
    def run(source: Source, *, force: bool = False, **changes: int | str) -> Sampled:
        values: dict[str, Any] = {
            "count": 40,
            "heldout": 10,
            "min_prompts": 30,
            "max_chars": 4000,
            "memory_mb": 64,
            "seed": 0,
        } | changes

        def ignore(_: SampleProgress) -> None: ...

        return sample(source, SampleOptions(**values), out, force=force, on_progress=ignore)

    return run


@pytest.fixture(scope="session")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture
def bucket(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401  (boto3 makes its types at run time)
    """Return an empty bucket; credentials are in the environment, as on any machine."""
    for name, value in (("AWS_ACCESS_KEY_ID", "mine"), ("AWS_SECRET_ACCESS_KEY", "secret")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    httpx2.post(f"{s3_url}/moto-api/reset")
    its = _s3(s3_url).Bucket("prompt-logs")
    its.create()
    return its


@cache
def _s3(url: str) -> Any:  # noqa: ANN401  (boto3 makes its types at run time)
    return boto3.resource("s3", endpoint_url=url)  # 0.3 s of CPU: it reads what S3 is from files
