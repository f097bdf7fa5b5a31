"""The engines of a worker: vLLM, any OpenAI-compatible server, and the echo engine."""
