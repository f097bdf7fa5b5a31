"""What answers the requests of a measurement: our processes, and those that they are measured beside."""
