"""A canary: a candidate beside what serves now, on the same prompts, until one of two tests has decided."""
