"""A linear map of the rows and one of the columns of every image: what resizing and blurring have in common.

Dense matrices waste multiplications on zeros, but batched matrix products are what CPUs and GPUs do best, need no
gather, and one implementation serves every window, scale and kernel.

Where PyTorch may multiply in TensorFloat-32 (``torch.set_float32_matmul_precision``) pixels are off by up to a 255th:
in each of the two products weights, which sum to 1, and pixels lose at most one part in 1,024.
"""

from __future__ import annotations

from torch import Tensor


def transform_axes(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """``rows[b] @ images[b, c] @ columns[b].T`` for every image and channel.

    Args:
        images: ``(B, C, H, W)``, floating point.
        rows: ``(B, h, H)``, from rows of the input to rows of the output.
        columns: ``(B, w, W)``, the same for columns.

    Returns:
        ``(B, C, h, w)``.
    """
    # All channels of an image in one product: with a matrix to each channel the columns would have to be copied.
    narrowed = (images.flatten(1, 2) @ columns.mT).unflatten(1, images.shape[1:3])
    return rows[:, None] @ narrowed
