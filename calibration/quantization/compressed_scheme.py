"""Translate a recipe's numbers into compressed-tensors' words."""

from __future__ import annotations

from dataclasses import asdict

from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from calibration.quantization.recipe import NumberFormat, Recipe


def compressed_scheme(recipe: Recipe) -> QuantizationScheme:
    """Return the scheme of all linear layers that the recipe does not ignore."""
    return QuantizationScheme(
        targets=["Linear"],
        weights=_arguments(recipe.weights),
        input_activations=_arguments(recipe.activations),
    )


def _arguments(numbers: NumberFormat | None) -> QuantizationArgs | None:
    if numbers is None:
        return None
    fields = {name: value for name, value in asdict(numbers).items() if value is not None}
    if numbers.block_structure:
        fields["block_structure"] = list(numbers.block_structure)
    return QuantizationArgs(**fields)
