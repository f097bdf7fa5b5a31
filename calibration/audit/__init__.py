"""What a set of prompts looks like, and where a policy would send it. Read run_audit.py first."""
