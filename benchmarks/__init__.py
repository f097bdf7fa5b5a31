"""Measurements of bitladder beside its peers and its floors. Nothing here is imported by the product."""
