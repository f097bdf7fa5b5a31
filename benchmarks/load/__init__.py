"""What sends the requests of a measurement, and counts their answers."""
