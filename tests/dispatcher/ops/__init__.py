"""Tests of dispatcher/ops."""
