"""The HTTP interface: HTTP in, one job on one queue, one outcome out. Knows no model and no GPU."""
