"""The cheapest fleet that keeps an SLO and a quality promise: an integer program over curves, then a simulation."""
