"""Calibration texts where no samples are given: passages of code and prose of packages in the quantizer's environment.

requirements/*.lock pin those packages, so the texts are the same on every machine, and nothing needs a download. None
of it is measured on: what is held out is packaged here, or comes from HumanEval and from Python's own reference.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from importlib import metadata
from itertools import islice

from calibration.errors import WrongEnvironmentError
from calibration.quantization.recipe import CalibrationMix
from calibration.quantization.texts.calibration_texts import MAX_TOKEN_CHARS
from calibration.texts.packaged import calibration_texts

# Written by many hands, for many purposes; pure Python, so that no file depends on the platform.
PACKAGES = (
    *("accelerate", "anyio", "certifi", "charset-normalizer", "click", "datasets", "filelock", "fsspec", "h11"),
    *("httpcore", "httpx", "huggingface-hub", "idna", "loguru", "markdown-it-py", "packaging", "pydantic", "pygments"),
    *("python-dateutil", "requests", "rich", "tqdm", "typer", "typing-inspection", "urllib3"),
)
SEED = 20261124
# Shorter files are mostly imports, or say little.
_MIN_CODE, _MIN_PROSE = 3000, 1500
_MAX_PER_PACKAGE = 12


def texts_for(mix: CalibrationMix) -> list[str]:
    """Return the texts of a mix, kinds shuffled into each other, the same ones every time."""
    generator = random.Random(SEED)  # noqa: S311  (must be repeatable, not secret)
    size = mix.tokens * MAX_TOKEN_CHARS
    texts = [
        *_passages(list(_sources()) if mix.code else [], mix.code, size, generator),
        *_passages(list(_descriptions()) if mix.prose else [], mix.prose, size, generator),
        *calibration_texts()[: mix.packaged],
    ]
    generator.shuffle(texts)
    return texts


def _passages(documents: list[str], count: int, size: int, generator: random.Random) -> list[str]:
    generator.shuffle(documents)
    if count and not documents:
        raise WrongEnvironmentError("no calibration text in this environment: none of its pinned packages is installed")
    passages = []
    for number in range(count):
        document = documents[number % len(documents)]
        start = generator.randrange(max(1, len(document) - size))
        passages.append(document[start : start + size])
    return passages


def _sources() -> Iterator[str]:
    for package in PACKAGES:
        distribution = _find(package)
        files = sorted(path for path in (distribution and distribution.files) or () if path.suffix == ".py")
        texts = (text for path in files if len(text := path.read_text(encoding="utf-8")) >= _MIN_CODE)
        yield from islice(texts, _MAX_PER_PACKAGE)


def _descriptions() -> Iterator[str]:
    for package in PACKAGES:
        distribution = _find(package)
        if distribution is not None and len(text := distribution.metadata["Description"] or "") >= _MIN_PROSE:
            yield text


def _find(package: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(package)
    except metadata.PackageNotFoundError:
        return None
