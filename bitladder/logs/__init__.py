"""What a process says of itself: lines of JSON, and how often one of them is written."""
