"""Simulations: no server, no network, a virtual clock."""
