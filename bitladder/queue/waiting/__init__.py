"""Waiting for what becomes of a job: one subscription per process, outcomes, and streams of chunks."""
