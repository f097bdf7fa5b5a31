"""Files of requests as batches: on the echo engine (`python -m benchmarks.batches`), and beside vLLM's own."""
