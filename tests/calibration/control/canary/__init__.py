"""Tests of calibration/control/canary."""
