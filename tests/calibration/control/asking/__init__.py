"""Tests of calibration/control/asking."""
