"""OpenAI's routes: completions and chat, awaited or streamed, and models."""
