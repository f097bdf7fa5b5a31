"""What a set of prompts looks like, and where a policy would send it. Read report.py first."""
