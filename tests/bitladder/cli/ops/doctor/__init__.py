"""bitladder/cli/ops/doctor: what is judged, by pure functions."""
