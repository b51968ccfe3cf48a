"""The exact arithmetic in plain Python integers, one value or one step at a time: slow, and meant to be read."""
