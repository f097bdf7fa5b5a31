"""Run code that a model wrote, where it can harm nobody, and judge it where it cannot lie."""
