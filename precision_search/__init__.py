"""The command `precision-search`."""
