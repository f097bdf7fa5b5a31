"""What operators order, and the answers: the same over HTTP and from the command line."""
