"""Asking tiers for what they say: of a running stack, or with local engines one after another."""
