"""Separate linear maps of the rows and the columns of every image, the common core of resizing and blurring.

Dense matrices waste multiplications on zeros, but batched matrix products are fast on CPUs and GPUs, need no gather,
and let one implementation serve every window, scale and kernel.

If PyTorch may multiply in TensorFloat-32 (``torch.set_float32_matmul_precision``), pixels are off by up to 1/255: in
each of the two products, the weights, which sum to 1, and the pixels lose at most one part in 1,024.
"""

from __future__ import annotations

from torch import Tensor


def transform_axes(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows[b] @ images[b, c] @ columns[b].T`` for every image and channel.

    Args:
        images: ``(B, C, H, W)``, floating point.
        rows: ``(B, h, H)``, from input rows to output rows.
        columns: ``(B, w, W)``, from input columns to output columns.

    Returns:
        ``(B, C, h, w)``.
    """
    # All channels of an image in one product: one matrix per channel would require copying the columns.
    narrowed = (images.flatten(1, 2) @ columns.mT).unflatten(1, images.shape[1:3])
    return rows[:, None] @ narrowed
