"""Files that an export holds as they are here; they run beside `model.py`, without this toolkit."""
