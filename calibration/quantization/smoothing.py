"""SmoothQuant for what a gated MLP hands to its last layer, which llm-compressor leaves as it is."""

from __future__ import annotations

import torch
from llmcompressor.modifiers.transform.smoothquant import SmoothQuantModifier
from llmcompressor.modifiers.transform.smoothquant.base import SmoothQuantScale
from torch.nn import Module

_GATED = ("gate_proj", "up_proj", "down_proj")


def smooth_gated(model: Module, strength: float) -> list[SmoothQuantModifier]:
    """Return what smooths the inputs of every down_proj of a gated MLP; nothing for a model without any.

    These are act(gate_proj(x)) * up_proj(x), so a channel can be divided in up_proj and multiplied in down_proj. The
    outliers there are the largest of a Llama (massive activations, arXiv:2402.17762).
    """
    mlps = [name for name, module in model.named_modules() if _is_gated(module)]
    if not mlps:
        return []
    mappings = [([f"{name}.down_proj"], f"{name}.up_proj") for name in mlps]
    return [_InputSmoothing(smoothing_strength=strength, mappings=mappings)]


def _is_gated(module: Module) -> bool:
    return all(isinstance(getattr(module, name, None), torch.nn.Linear) for name in _GATED)


class _InputSmoothing(SmoothQuantModifier):  # type: ignore[misc]  # llm-compressor's types are not read
    """Looks at what goes into the balanced layer; the original looks at what comes out of the layer before.

    Behind a norm the two are the same. Behind up_proj they are not: the gate is between.
    """

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
