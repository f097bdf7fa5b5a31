"""Tests of calibration/control/labelling."""
