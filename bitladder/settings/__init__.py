"""Configuration: sections by owner, their sources, published releases, and what changes while a process runs."""
