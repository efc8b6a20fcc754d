"""Small layers with the reference's initialisation and TensorFlow's normalisation conventions."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from prismrec.loss.products import linear
from prismrec.loss.rows import select_rows


def unit_norm(x: Tensor) -> Tensor:
    """Scale the last dimension to length one: x * rsqrt(max(sum x^2, 1e-12)); zero stays zero."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True).clamp(min=1e-12))


def unit_normal(*shape: int) -> nn.Parameter:
    """A parameter of normal entries with deviation dim^-0.5: normalised, its rows are uniform on the sphere."""
    return nn.Parameter(torch.randn(shape) * shape[-1] ** -0.5)


class Dense(nn.Linear):
    """A dense layer, of inputs alone or beside inputs that all users share."""

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """[B, P, D] and [P, D''] -> [B, P, D'], of both side by side; what is shared is multiplied once."""
        if shared is None:
            return linear(x, self.weight, self.bias)
        own, common = self.weight.split([x.shape[-1], shared.shape[-1]], 1)
        return linear(x, own) + linear(shared, common, self.bias)


def dense(in_features: int, out_features: int, bias: bool = True) -> Dense:
    """A dense layer, Glorot normal weights, zero bias."""
    layer = Dense(in_features, out_features, bias=bias)
    nn.init.xavier_normal_(layer.weight)
    if bias:
        nn.init.zeros_(layer.bias)
    return layer


class PathwiseLinear(nn.Module):
    """One dense layer per path, as `Dense` of inputs alone or beside those that all users share."""

    def __init__(self, num_paths: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_paths, in_features, out_features))
        self.bias = nn.Parameter(torch.zeros(num_paths, out_features))
        for path in self.weight.data:
            nn.init.xavier_normal_(path)

    def forward(self, x: Tensor, shared: Tensor | None = None) -> Tensor:
        """[B, P, D] and [P, D''] -> [B, P, D']."""
        if shared is None:
            return torch.einsum("bpd,pde->bpe", x, self.weight) + self.bias
        own, common = self.weight.split([x.shape[-1], shared.shape[-1]], 1)
        return torch.einsum("bpd,pde->bpe", x, own) + (torch.einsum("pd,pde->pe", shared, common) + self.bias)


class UnitLayerNorm(nn.Module):
    """Layer normalisation over the last dimension, optionally divided by sqrt(D) so that outputs have norm one.

    gamma * (x - mean) / sqrt(variance + epsilon) [/ sqrt(D)] + beta
    """

    def __init__(self, dim: int, unit: bool, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.beta = nn.Parameter(torch.zeros(dim))
        self.scale = dim**-0.5 if unit else 1.0
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        normalised = nn.functional.layer_norm(x, x.shape[-1:], eps=self.epsilon)
        return self.gamma * (normalised * self.scale) + self.beta


def of_clicks(layer: Callable[..., Tensor], mask: Tensor, *inputs: Tensor) -> Tensor:
    """A layer of each click for itself, which need not be computed for padding: most of a batch of short histories.

    An exported graph has no shape that depends on numbers, and computes it.

    Args:
        layer: [N, ...], ... -> [N, D'].
        mask: true where there is a click [B, T].
        inputs: [B, T, ...], ...; numbers or embeddings.

    Returns:
        [B, T, D'], anything where there is no click.
    """
    if torch.compiler.is_compiling():
        return layer(*inputs)
    clicks = mask.flatten().nonzero().squeeze(1)
    flat = [each.flatten(0, 1) for each in inputs]
    result = layer(*(select_rows(each, clicks) if each.is_floating_point() else each[clicks] for each in flat))
    padded = result.new_zeros(mask.numel(), result.shape[-1])
    return padded.index_copy(0, clicks, result).unflatten(0, mask.shape)


def floor_log2(x: Tensor, largest: int) -> Tensor:
    """floor(log2(x)) of integers from 0 to 2^32, between 0 and `largest`: that of x + 1/2, which is never near a power.

    The logarithm of 2 is taken in the graph, since as a number the ONNX exporter would round it to float32.
    """
    two = torch.full((), 2, dtype=torch.float64, device=x.device)
    return (torch.log(x.double() + 0.5) / torch.log(two)).floor().clamp(0, largest).long()
