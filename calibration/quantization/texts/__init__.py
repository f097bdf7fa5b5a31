"""What a recipe calibrates on: texts, and which of their tokens."""
