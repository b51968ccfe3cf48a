"""Recorded vectors against the exact Tensix arithmetic: `python -m backends.tenstorrent.verify DIR`."""
