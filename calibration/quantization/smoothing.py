"""SmoothQuant for what norms hand on, and for what a gated MLP hands to its last layer, in one pass over the samples.

llm-compressor knows the first alone, and takes one strength for all.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.modifiers.transform.smoothquant.base import SmoothQuantScale
from torch.nn import Module

_GATED = ("gate_proj", "up_proj", "down_proj")


def smoothing(model: Module, *, behind_norms: float, gated: float) -> SmoothQuantModifier:
    """Return what smooths the inputs of the layers behind norms, and those of every down_proj of a gated MLP.

    The latter are act(gate_proj(x)) * up_proj(x), so a channel can be divided in up_proj and multiplied in down_proj.
    The outliers there are the largest of a Llama (massive activations, arXiv:2402.17762).
    """
    modifier = _InputSmoothing(smoothing_strength=behind_norms)
    modifier.smooth_gated(model, gated)
    return modifier


class _InputSmoothing(SmoothQuantModifier):  # type: ignore[misc]  # llm-compressor's types are not read
    """Looks at what goes into the balanced layer; the original looks at what comes out of the layer before.

    Behind a norm the two are the same. Behind up_proj they are not: the gate is between.
    """

    _gated: tuple[tuple[str, Module], ...] = ()  # gated MLPs and their last layers
    _gated_strength: float = 0.0

    def smooth_gated(self, model: Module, strength: float) -> None:
        self._gated = tuple(_gated_mlps(model))
        self._gated_strength = strength

    def _infer_mappings_from_model(self, model: Module) -> list[tuple[list[str], str]]:
        gated = [([f"{name}.down_proj"], f"{name}.up_proj") for name, _ in self._gated]
        return [*super()._infer_mappings_from_model(model), *gated]

    def _calculate_smoothing_scales(
        self, balance_layers: list[Module], activation_scales: torch.Tensor
    ) -> torch.Tensor:
        if not any(balance_layers[0] is layer for _, layer in self._gated):
            return super()._calculate_smoothing_scales(balance_layers, activation_scales)
        gated = SmoothQuantModifier(smoothing_strength=self._gated_strength)
        return gated._calculate_smoothing_scales(balance_layers, activation_scales)

    def _setup_scale_hooks(self) -> None:
        for mapping in self.resolved_mappings_:
            self._observe(mapping.smooth_name, mapping.balance_layers[0])

    def _observe(self, name: str, layer: Module) -> None:
        def seen(_: Module, inputs: tuple[torch.Tensor, ...]) -> None:
            rows = inputs[0].flatten(end_dim=-2)
            low, high = rows.amin(0), rows.amax(0)
            if before := self.scales_.get(name):
                low = torch.minimum(before.min_channel_vals, low)
                high = torch.maximum(before.max_channel_vals, high)
            self.scales_[name] = SmoothQuantScale(min_channel_vals=low, max_channel_vals=high)

        self.register_hook(layer, seen, "forward_pre")


def _gated_mlps(model: Module) -> Iterator[tuple[str, Module]]:
    for name, module in model.named_modules():
        if all(isinstance(getattr(module, layer, None), torch.nn.Linear) for layer in _GATED):
            yield name, module.down_proj
