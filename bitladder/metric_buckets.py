"""Buckets that histograms of several processes share, so that their figures can be compared."""

from __future__ import annotations

# From a queue's fastest answer to the slowest generation that a client waits for.
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
