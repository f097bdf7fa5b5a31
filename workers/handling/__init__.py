"""One job from its claim to its settlement in Redis."""
