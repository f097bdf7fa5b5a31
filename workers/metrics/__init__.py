"""The metrics of a worker, and the rows that they are made of."""
