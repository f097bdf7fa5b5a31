"""The state of a whole service at a glance: one sample of it, what an operator should look at, and its history."""
