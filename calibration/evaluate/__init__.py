"""Measure checkpoints through the engine that serves them; run.py is the way from top to bottom."""
