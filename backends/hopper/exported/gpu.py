"""Gpu: which card is there, asked of NVIDIA's driver itself; nothing but the standard library is needed."""

import ctypes
from dataclasses import dataclass
from typing import Any

FP8_FROM = (8, 9)
"""Compute capability of the first cards with FP8 tensor cores: 8.9 is Ada (L40S), 9.0 Hopper (H100, H200)."""

_DRIVER = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE


class NoGpuError(RuntimeError):
    """There is no card, no driver for it, or it cannot do what is asked; the message says which."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A card, as its driver describes it."""

    name: str
    capability: tuple[int, int]
    driver_cuda: tuple[int, int]
    """The newest CUDA that the driver runs."""

    @property
    def slug(self) -> str:
        """For names of files: `nvidia-h100-80gb-hbm3-sm90`."""
        words = "".join(letter if letter.isalnum() else " " for letter in self.name.lower()).split()
        return "-".join([*words, f"sm{self.capability[0]}{self.capability[1]}"])

    def check_fp8(self) -> None:
        """Raise NoGpuError where the card has no FP8 tensor cores."""
        if self.capability < FP8_FROM:
            raise NoGpuError(
                f"{self.name} has compute capability {self.capability[0]}.{self.capability[1]}, and the model has FP8"
                " products, which need 8.9 (Ada), 9.0 (Hopper) or above; take a policy of bf16 and fp16 there"
            )


def gpu(index: int = 0) -> Gpu:
    """Describe a card; CUDA_VISIBLE_DEVICES holds.

    Raises:
        NoGpuError: there is no driver, or no such card.
    """
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise NoGpuError(
            f"no NVIDIA driver: {_DRIVER} is not there ({error}). Install the driver; in a container start it with"
            " --gpus all"
        ) from error
    code = driver.cuInit(0)
    if code == _NO_DEVICE:
        raise NoGpuError("the NVIDIA driver finds no GPU: look at nvidia-smi and CUDA_VISIBLE_DEVICES")
    _check(driver, code, "does not start")
    count = _number(driver, "cuDeviceGetCount")
    if not 0 <= index < count:
        raise NoGpuError(f"there is no GPU {index}: there are {count}, counted from 0 (CUDA_VISIBLE_DEVICES holds)")
    device = _number(driver, "cuDeviceGet", index)
    name = ctypes.create_string_buffer(256)
    _check(driver, driver.cuDeviceGetName(name, len(name), device), "does not say the card's name")
    version = _number(driver, "cuDriverGetVersion")
    return Gpu(
        name.value.decode(),
        (
            _number(driver, "cuDeviceGetAttribute", _MAJOR, device),
            _number(driver, "cuDeviceGetAttribute", _MINOR, device),
        ),
        (version // 1000, version % 1000 // 10),
    )


def use(index: int) -> None:
    """Make a card that of this thread, for TensorRT builds and loads on whichever is.

    Raises:
        NoGpuError: the driver refuses; `gpu` says what of.
    """
    driver, context = ctypes.CDLL(_DRIVER), ctypes.c_void_p()
    device = _number(driver, "cuDeviceGet", index)
    _check(driver, driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device), "gives no context")
    _check(driver, driver.cuCtxSetCurrent(context), "does not take its context")


def _number(driver: Any, function: str, *arguments: int) -> int:
    value = ctypes.c_int()
    _check(driver, getattr(driver, function)(ctypes.byref(value), *arguments), f"fails in {function}")
    return value.value


def _check(driver: Any, code: int, what: str) -> None:
    if code:
        text = ctypes.c_char_p()
        driver.cuGetErrorString(code, ctypes.byref(text))
        raise NoGpuError(f"the NVIDIA driver {what}: {(text.value or b'').decode() or 'error'} ({code})")
