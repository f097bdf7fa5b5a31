"""Tests of bitladder/queue/json_views/finding, on a real Valkey."""
