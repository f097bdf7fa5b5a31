"""The commands of `bitladder calibrate`: one file each, with `register(app)`; calibration/cli.py loads one of them."""
