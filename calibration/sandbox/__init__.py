"""Run code that a model wrote in isolation, and judge it where it cannot change the verdict."""
