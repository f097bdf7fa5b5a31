"""The texts that a recipe is calibrated on, from a JSONL file or a folder that `calibrate sample` wrote."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

from calibration.errors import InputError
from calibration.quantization.recipe import USES_GPTQ, CalibrationMix, Recipe
from calibration.texts.jsonl import read_line, read_lines

# With fewer texts, channels that matter look as if they did not (docs/calibration/quantize.md).
MIN_TEXTS = 16
# Lower bound of the characters of a token, on average: code and other languages have fewer than English.
_MIN_TOKEN_CHARS = 3
# Upper bound of the characters of a token: few texts have more on average.
MAX_TOKEN_CHARS = 8
# 2**64 divided by the golden ratio: its multiples modulo 2**64 are evenly distributed, however many are taken.
_GOLDEN = 0x9E3779B97F4A7C15


def read_texts(path: Path) -> list[str]:
    """Return the texts of a sampled set's calibration half, or of a JSONL file.

    A set was checked before (sample/sets.py), and any beginning of it is a fair sample. A file may be sorted: its texts
    are put into such an order here.

    Raises:
        InputError: there is no such file, or a line is not an object with `text` or `prompt`; names the line.

    """
    file = path / "calibration.jsonl" if path.is_dir() else path
    texts = read_lines(file, "sample", lambda line, where: read_line(line, where)[0])
    return texts if path.is_dir() else spread_evenly(texts)


def check_enough(recipe: Recipe, texts: list[str], max_inputs: int) -> None:
    """Raise InputError if these texts are too few or too short for a recipe; of a long text only the beginning counts.

    max_inputs is the number of inputs of the widest layer: GPTQ estimates the square of that many correlations.
    """
    if recipe.mix is None:
        return
    mix = recipe.mix
    if len(texts) < MIN_TEXTS:
        raise InputError(
            f"{len(texts)} samples are too few for recipe {recipe.name}: at least {MIN_TEXTS} are needed, better "
            f"{mix.most_tokens} tokens in all; of a long one only the first {mix.tokens} are read"
        )
    tokens = sum(min(mix.tokens, len(text) // _MIN_TOKEN_CHARS) for text in first_texts(mix, texts))
    if recipe.method in USES_GPTQ and tokens < max_inputs:
        raise InputError(
            f"the samples have about {tokens} tokens; recipe {recipe.name} (GPTQ) needs at least as many as the widest "
            f"layer has inputs, {max_inputs}"
        )


def first_texts(mix: CalibrationMix, texts: list[str]) -> tuple[str, ...]:
    """Return the beginnings of as many texts as the mix may need: no token has more characters, on average."""
    beginnings = [text[: mix.tokens * MAX_TOKEN_CHARS] for text in texts]
    if not mix.budget:
        return tuple(beginnings[: mix.texts])
    before = accumulate(map(len, beginnings), initial=0)
    enough = mix.budget * MAX_TOKEN_CHARS
    return tuple(text for text, chars in zip(beginnings, before, strict=False) if chars < enough)


def spread_evenly(texts: list[str]) -> list[str]:
    """Return the texts in an order whose every beginning is spread evenly over the whole list."""
    return [texts[place] for place in sorted(range(len(texts)), key=lambda place: place * _GOLDEN % 2**64)]
