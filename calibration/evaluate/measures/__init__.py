"""What is measured of a checkpoint, a file for each measure; calibration/artifacts/metrics.py lists them."""
