"""What the echo engine has in place of a model: it reads requests, makes up answers and writes them as vLLM does."""
