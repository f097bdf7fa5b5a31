"""From a prompt and its constraints to the lowest tier allowed: pure functions. Read accept.py first."""
