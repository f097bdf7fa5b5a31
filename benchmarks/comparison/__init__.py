"""What the benchmark of recipes compares with: recipes of its own, and exact divergences."""
