"""The engines a worker can feed: vLLM, any OpenAI-compatible server, and the echo engine."""
