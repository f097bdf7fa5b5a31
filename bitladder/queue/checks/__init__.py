"""Whether a Redis can serve at all: asked at the start of each process, and again and again while it runs."""
