"""Drift: whether prompts are still like those that were labelled, and whether what was promised of them still holds."""
