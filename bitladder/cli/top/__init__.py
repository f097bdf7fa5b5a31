"""bitladder top: the whole service at a glance, as a screen or as a table."""
