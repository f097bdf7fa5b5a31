"""Texts to calibrate and measure on: packaged ones, JSON Lines, and passages of them."""
