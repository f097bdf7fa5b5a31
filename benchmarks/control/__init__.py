"""Benchmarks of the control loop: predictors, the ablation, promises, drift, shadows, and plans."""
