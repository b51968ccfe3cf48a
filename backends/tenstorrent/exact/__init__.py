"""Tensix arithmetic to the bit, compiled: host conversions, unpacker, matrix engine, packer, and whole ttnn operations.

The rules are those of the vendor's functional simulator (tenstorrent/ttsim v1.10.0) and, on the host, of the ttnn
0.81.1 wheel. `definition/` says them in plain Python integers, one value at a time; all else is tested against it.
"""
