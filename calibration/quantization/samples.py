"""The texts that a recipe is calibrated on, from a file or a folder that `calibrate sample` wrote."""

from __future__ import annotations

from pathlib import Path

from calibration.errors import InputError
from calibration.quantization.recipe import USES_GPTQ, Recipe
from calibration.texts.jsonl import read_line, read_lines

# With fewer, channels that matter look as if they did not (docs/calibration.md).
MIN_TEXTS = 16
# What a token is in characters, at least on average: code and other languages have fewer than English.
CHARACTERS_PER_TOKEN = 3
# 2**64 divided by the golden ratio: its multiples fall evenly between 0 and 2**64, however many are taken.
_GOLDEN = 0x9E3779B97F4A7C15


def read_texts(path: Path) -> list[str]:
    """Return the texts of a sampled set's calibration half, or of a JSONL file.

    The former was checked before (sample/sets.py), and is in an order of which any beginning will do. A file may be
    sorted, so that its texts are put into such an order here.

    Raises:
        InputError: there is no such file, or a line is not an object with `text` or `prompt`; names the line.

    """
    file = path / "calibration.jsonl" if path.is_dir() else path
    texts = read_lines(file, "sample", lambda line, where: read_line(line, where)[0])
    return texts if path.is_dir() else spread(texts)


def check_enough(recipe: Recipe, texts: list[str], widest: int) -> None:
    """Raise InputError if a recipe would be calibrated on too little; a giant text counts once, its beginning only.

    widest is the most inputs that a layer has: GPTQ estimates that many squared correlations.
    """
    if recipe.mix is None:
        return
    if len(texts) < MIN_TEXTS:
        raise InputError(
            f"{len(texts)} samples are too few for recipe {recipe.name}: at least {MIN_TEXTS} are needed, better "
            f"{recipe.mix.texts}; of a long one only the first {recipe.mix.tokens} tokens are read"
        )
    tokens = sum(min(recipe.mix.tokens, len(text) // CHARACTERS_PER_TOKEN) for text in texts[: recipe.mix.texts])
    if recipe.method in USES_GPTQ and tokens < widest:
        raise InputError(
            f"the samples have about {tokens} tokens; recipe {recipe.name} (GPTQ) needs at least as many as the widest "
            f"layer has inputs, {widest}"
        )


def chosen(recipe: Recipe, texts: list[str]) -> tuple[str, ...]:
    """Return the beginnings of as many texts as the recipe looks at."""
    if recipe.mix is None:
        return ()
    size = recipe.mix.tokens * 8
    return tuple(text[:size] for text in texts[: recipe.mix.texts])


def spread(texts: list[str]) -> list[str]:
    """Return them in an order of which every beginning comes evenly from the whole, and follows none of its periods."""
    return [texts[place] for place in sorted(range(len(texts)), key=lambda place: place * _GOLDEN % 2**64)]
