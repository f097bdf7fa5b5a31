"""What comes, and how fast it is served: traces of requests, and service curves. Files that several programs read."""
