"""bitladder doctor: what would keep the product from serving well, and what to do about it."""
