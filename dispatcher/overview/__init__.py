"""The samples of one intake: taken once however many watch, and kept as history."""
