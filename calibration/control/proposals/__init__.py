"""Proposals: what a step of the control loop would change, why, and how it is undone; people or limits say yes."""
