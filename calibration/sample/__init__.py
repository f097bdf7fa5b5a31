"""From any amount of traffic to a small, mixed, split set of prompts. Read run.py first."""
