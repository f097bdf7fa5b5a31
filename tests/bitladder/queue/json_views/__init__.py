"""Tests of bitladder/queue/json_views."""
