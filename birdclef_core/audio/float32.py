"""Exact float32 within code of lower precision, for spectrograms and their augmentation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Switch off autocast and TF32 within the block. TF32 would keep 11 bits of a decibel value or of a mel filter's sum."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    with torch.autocast(device.type, enabled=False):
        matmul.fp32_precision = "ieee"
        try:
            yield
        finally:
            matmul.fp32_precision = before
