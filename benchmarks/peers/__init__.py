"""One adapter per queue, each run by `python -m benchmarks.peers.NAME` in that queue's own environment."""
