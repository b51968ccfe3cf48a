"""The decoder, as small as it can be and still be one."""

from dataclasses import replace

from voice.decoder_config import SMALL, CodecConfig

TINY = replace(
    SMALL,
    layers=2,
    width=32,
    heads=4,
    kv_heads=2,
    head_size=8,
    hidden=48,
    text=12,
    max_rows=48,
    codec=CodecConfig(16000, 3, 10, 8, (8, 8, 8, 8, 8), (8, 8, 5, 4)),
)
