"""One intake process over several Redis: an app for each, and what stands before them."""
