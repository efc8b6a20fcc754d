"""From the PyTorch model to ONNX encoders of users and items, and the proof that they agree.

Takes a trained model, real histories and items; gives graph files and the largest differences measured.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxscript.optimizer import fold_constants
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from prismrec.data.history import HistoryBatch
from prismrec.errors import ArtifactError, ConfigError
from prismrec.export.fused import fuse_item_encoder
from prismrec.export.item_encoder import FEATURES, VECTORS, OnnxItemEncoder
from prismrec.export.user_encoder import EncodedUsers, OnnxUserEncoder
from prismrec.model.encode import encode_users
from prismrec.model.multi_interest import MultiInterestModel

OPSET = 20
MAX_DIFFERENCE = 1e-5
MIN_INT8_COSINE = 0.999
_BLOCKS, _SCOPES = "users.sequence.blocks", "pkg.torch.onnx.name_scopes"
_EXAMPLES = 3  # any number but 0 and 1, which the tracer would take for constants


def export_user_encoder(model: MultiInterestModel, path: Path, *, int8: bool = False) -> None:
    """Write the model's `forward` as ONNX with a dynamic batch dimension; inputs and outputs keep their names.

    Args:
        model: the model.
        path: the file.
        int8: multiply in the sequence encoder's blocks in 8 bits, weights with a scale for each column and states with
            one for each product: faster where the processor has instructions for it, at a small change of the vectors,
            which also depends a little on who is encoded in the same batch.

    Raises:
        ConfigError: `int8` for a model without such blocks.
    """
    if int8 and model.config.encoder.kind == "none":
        raise ConfigError("int8: expected a model with a sequence encoder; this one has encoder.kind=none")
    with _fused_items(model):
        products = _export(model, _example_inputs(model), list(EncodedUsers._fields), path)
    if int8:
        with _quiet():
            quantize_dynamic(path, path, nodes_to_quantize=products, per_channel=True, weight_type=QuantType.QInt8)


def export_item_encoder(model: MultiInterestModel, path: Path) -> None:
    """Write the model's `encode_items` as ONNX, `features` [I, F] -> `vectors` [I, D], with a dynamic I."""
    example = torch.ones(_EXAMPLES, len(model.schema.item_features), dtype=torch.int64)
    _export(_ItemEncoder(model), {FEATURES: example}, [VECTORS], path)


def _export(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> list[str]:
    """Write a module as ONNX whose inputs share a dynamic first dimension; gives the products of `_BLOCKS`."""
    batch = torch.export.Dim("batch")
    # attention is lowered to plain products and a softmax, as if the fused kernel had not been chosen
    with _quiet(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        program = torch.export.export(module, (), inputs, dynamic_shapes={name: {0: batch} for name in inputs})
        # with optimize, the softmax's epsilon of 1e-8 is taken for zero and dropped: empty histories would give NaN
        exported = torch.onnx.export(
            program,
            dynamo=True,
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
        assert exported is not None  # it is None only for the older exporter
        _simplify(exported.model)
        products = []
        for node in exported.model.graph.all_nodes():
            if node.op_type == "MatMul" and _BLOCKS in node.metadata_props.get(_SCOPES, ""):
                products.append(str(node.name))
            node.metadata_props.clear()  # stack traces with the paths of this machine
        exported.save(path)
    return products


def _simplify(model: ir.Model) -> None:
    """Compute once what depends on constants alone or is computed twice: each node of a graph costs microseconds."""
    common.InlinePass()(model)
    fold_constants(model)
    for simplify in (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
    ):
        simplify(model)


def check_user_encoder(
    model: MultiInterestModel,
    encoder: OnnxUserEncoder,
    batch: HistoryBatch,
    item_features: np.ndarray,
    *,
    int8: bool = False,
) -> tuple[np.ndarray, float]:
    """Compare ONNX with PyTorch on real histories.

    Returns:
        The users' vectors [B, V, D], and the largest absolute difference in them.

    Raises:
        ArtifactError: the difference exceeds `MAX_DIFFERENCE`, or with `int8` the mean cosine of vectors is below
            `MIN_INT8_COSINE`.
    """
    expected = encode_users(model, batch, item_features).vectors
    found = encoder.encode(batch, item_features).vectors
    if not int8:
        return found, _difference(found, expected, "user")
    there = expected.any(axis=2)  # a vector that is not there in `found`, or is NaN, counts
    lengths = np.linalg.norm(expected, axis=2) * np.linalg.norm(found, axis=2)
    cosines = (found * expected).sum(axis=2)[there] / np.maximum(lengths[there], np.finfo(np.float32).tiny)
    cosine = float(cosines.mean()) if len(cosines) else 1.0
    if not cosine >= MIN_INT8_COSINE:  # also refuses NaN
        raise ArtifactError(
            f"ONNX user encoder in 8 bits: expected a mean cosine of at least {MIN_INT8_COSINE} to PyTorch's vectors "
            f"on {len(found)} users, found {cosine:.4f}; export without --int8"
        )
    return found, float(np.abs(found - expected).max(initial=0.0))


def check_item_encoder(encoder: OnnxItemEncoder, features: np.ndarray, expected: np.ndarray) -> float:
    """Compare ONNX with PyTorch on real items.

    Args:
        encoder: the exported one.
        features: raw ids, int64 [I, F].
        expected: PyTorch's vectors of these items [I, D].

    Returns:
        The largest absolute difference.

    Raises:
        ArtifactError: it exceeds `MAX_DIFFERENCE`.
    """
    return _difference(encoder.encode(features), expected, "item")


class _ItemEncoder(nn.Module):
    """A model whose `forward` is `encode_items`: only a `forward` can be exported; unused weights are left out."""

    def __init__(self, model: MultiInterestModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> Tensor:
        return self.model.encode_items(features)


def _difference(found: np.ndarray, expected: np.ndarray, name: str) -> float:
    difference = float(np.abs(found - expected).max(initial=0.0))
    if not difference <= MAX_DIFFERENCE:  # also refuses NaN
        raise ArtifactError(
            f"ONNX {name} encoder: expected vectors within {MAX_DIFFERENCE:g} of PyTorch's on {len(found)} {name}s, "
            f"found a difference of {difference:g}; the installed torch and onnxruntime do not agree on this model"
        )
    return difference


def _example_inputs(model: MultiInterestModel) -> dict[str, Tensor]:
    schema = model.schema
    shape = (_EXAMPLES, model.max_length)
    return {
        "item": torch.ones(*shape, len(schema.item_features), dtype=torch.int64),
        "time": torch.ones(shape, dtype=torch.int64),
        "dwell": torch.ones(shape, dtype=torch.int64),
        "recent": torch.ones(shape, dtype=torch.bool),
        "context": torch.ones(*shape, len(schema.context_features), dtype=torch.int64),
        "now": torch.ones(_EXAMPLES, dtype=torch.int64),
        "user": torch.ones(_EXAMPLES, dtype=torch.int64),
    }


@contextlib.contextmanager
def _fused_items(model: MultiInterestModel) -> Iterator[None]:
    """Let the model have its item tower in the form that is fast to serve."""
    items = model.items
    model.items = fuse_item_encoder(items)  # type: ignore[assignment]
    try:
        yield
    finally:
        model.items = items


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's remarks about its own deprecations and about packages this model does not use."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
