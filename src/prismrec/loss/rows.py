"""Rows and columns picked out of tensors."""

from torch import Tensor, nn


def select_rows(x: Tensor, index: Tensor) -> Tensor:
    """Gather along the first dimension, [G, ...], [...] -> [..., ...], with a gradient summed in a fixed order.

    That of plain indexing is not, with several threads, and training could not be repeated.
    """
    return nn.functional.embedding(index, x.flatten(1)).unflatten(-1, x.shape[1:])


def select_columns(x: Tensor, column: Tensor) -> Tensor:
    """The column of each row: [B, V, C], [B] -> [B, V]."""
    return x.gather(2, column[:, None, None].expand(-1, x.shape[1], 1)).squeeze(2)
