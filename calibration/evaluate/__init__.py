"""Measure checkpoints through the engine that serves them. Read run_evaluation.py first."""
