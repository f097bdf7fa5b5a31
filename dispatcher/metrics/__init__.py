"""The metrics of an intake, and the rows that they are made of."""
