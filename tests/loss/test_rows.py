import torch

from prismrec.loss.rows import select_rows


def test_select_rows() -> None:
    x = torch.arange(12.0).view(3, 2, 2).requires_grad_()
    chosen = select_rows(x, torch.tensor([2, 0, 2]))
    assert chosen.tolist() == [x[2].tolist(), x[0].tolist(), x[2].tolist()]
    chosen.sum().backward()
    assert x.grad is not None
    assert x.grad[:, 0, 0].tolist() == [1, 0, 2]
    assert select_rows(x, torch.tensor([[0, 1]])).shape == (1, 2, 2, 2)
