"""Tenstorrent's own host packer: the ttnn wheel on a card that is not there (`tests/ttnn_card/`)."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

CARD = Path(__file__).parents[2] / "ttnn_card" / "n150.yaml"
DTYPES = {"bfp8_b": "bfloat8_b", "bfp4_b": "bfloat4_b", "bf16": "bfloat16", "fp32": "float32"}
TILE_BYTES = {"bfp8_b": 1088, "bfp4_b": 576, "bf16": 2048, "fp32": 4096}


@dataclass(frozen=True)
class Vendor:
    """What `ttnn.from_torch`, `to_torch`, `dump_tensor` and `load_tensor` make of host tensors in tiles."""

    ttnn: Any
    file: Path

    def store(self, values: torch.Tensor, fmt: str, **options: Any) -> Any:
        """The ttnn tensor that `from_torch` packs."""
        dtype = getattr(self.ttnn, DTYPES[fmt])
        return self.ttnn.from_torch(values, dtype=dtype, layout=self.ttnn.TILE_LAYOUT, **options)

    def read(self, stored: Any) -> np.ndarray:
        """Values of a stored tensor, as float32."""
        return self.ttnn.to_torch(stored).to(torch.float32).numpy()

    def tiles(self, stored: Any, fmt: str) -> np.ndarray:
        """Bytes of a stored tensor, [tiles, bytes of a tile]."""
        self.ttnn.dump_tensor(str(self.file), stored)
        return self._split(self.file.read_bytes())[1].reshape(-1, TILE_BYTES[fmt])

    def load(self, tiles: np.ndarray, fmt: str, shape: tuple[int, ...]) -> Any:
        """The tensor of a shape that has these bytes."""
        self.ttnn.dump_tensor(str(self.file), self.store(torch.zeros(shape), fmt))
        head, body = self._split(self.file.read_bytes())
        assert body.size == tiles.size, f"{shape} takes {body.size} bytes, got {tiles.size}"
        self.file.write_bytes(head + tiles.tobytes())
        return self.ttnn.load_tensor(str(self.file))

    @staticmethod
    def _split(content: bytes) -> tuple[bytes, np.ndarray]:
        """A .tensorbin file is the length of its header (8 bytes, little-endian), the header, and the tiles."""
        start = 8 + int.from_bytes(content[:8], "little")
        return content[:start], np.frombuffer(content, np.uint8, offset=start)


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    if importlib.util.find_spec("ttnn") is None:
        pytest.skip("the ttnn wheel is not installed; there is one for CPython 3.12 (and 3.10) on x86-64 Linux only")
    folder = tmp_path_factory.mktemp("ttnn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TT_METAL_MOCK_CLUSTER_DESC_PATH", str(CARD))
        patch.setenv("TT_METAL_CACHE", str(folder))
        patch.setenv("TT_METAL_LOGGER_LEVEL", "OFF")
        patch.setenv("LOGURU_LEVEL", "ERROR")
        ttnn = importlib.import_module("ttnn")
        vendor = Vendor(ttnn, folder / "tensor.tensorbin")
        # The first tensor opens the cluster, which stays open; without the mock one ttnn would look for a card.
        vendor.store(torch.zeros(1, 1), "bf16")
    return vendor
