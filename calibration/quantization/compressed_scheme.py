"""Translate a recipe's numbers into compressed-tensors' words."""

from __future__ import annotations

from dataclasses import asdict

from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

from calibration.quantization.recipe import NumberFormat, Recipe


def config_groups(recipe: Recipe) -> dict[str, QuantizationScheme]:
    """Return the schemes by the name of their group; where two match a layer, its name goes before its class."""
    groups = {"group_0": compressed_scheme(recipe)}
    if recipe.finer:
        groups["group_1"] = QuantizationScheme(
            targets=list(recipe.finer),
            weights=_arguments(recipe.finer_weights),
            input_activations=_arguments(recipe.activations),
        )
    return groups


def compressed_scheme(recipe: Recipe) -> QuantizationScheme:
    """Return the scheme of all linear layers that the recipe neither ignores nor gives numbers of their own."""
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
