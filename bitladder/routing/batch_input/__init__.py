"""Batch input: the lines of a file of requests, as intake and command line read them. Pure."""
