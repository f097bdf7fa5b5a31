"""The commands of `bitladder calibrate`: one file each, with `register(app)`; app.py loads one of them."""
