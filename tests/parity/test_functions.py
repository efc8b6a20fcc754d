"""Every single-function golden file: outputs to 1e-5 relative, gradients to 1e-4."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prismrec.config import ModelConfig
from prismrec.loss.contrastive import multi_vector_loss, single_vector_loss
from prismrec.loss.regularizers import balance_loss, head_metrics, semantic_loss, sharpness_loss
from prismrec.loss.softmax import weighted_softmax
from prismrec.model.aggregation import HeadAggregation, select_top_vectors
from prismrec.model.attention import ContextAttention, QueryAttention
from prismrec.model.layers import PathwiseLinear, UnitLayerNorm, unit_norm
from prismrec.model.routing import DisentangleLayer, PrototypeRouter
from prismrec.model.user_encoder import UserEncoder

OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
ROUNDING = 8 * float(np.finfo(np.float32).eps)

METRICS = {
    "nll_loss": "nll_loss",
    "nw": "negative_weight",
    "qw": "query_weight",
    "min_cos": "cosine_min",
    "max_cos": "cosine_max",
    "avg_cos": "cosine_mean",
    "rk1_acc": "rank1_accuracy",
    "kl_loss": "balance_loss",
    "sharp_loss": "sharpness_loss",
    "semantic_loss": "semantic_loss",
    "max_prob_h": "head_sharpness",
    "max_post_h": "head_usage_max",
    "min_post_h": "head_usage_min",
}


class Case:
    """One golden file: tensors by short name, and variables loaded into modules by the end of their path."""

    def __init__(self, path: Path, arguments: dict[str, Any]) -> None:
        self.arrays = dict(np.load(path))
        self.arguments = arguments
        self.inputs = {
            name.removeprefix("in/"): torch.from_numpy(array).requires_grad_(array.dtype == np.float32)
            for name, array in self.arrays.items()
            if name.startswith("in/")
        }
        self.variables: dict[str, tuple[nn.Parameter, bool]] = {}

    def __getitem__(self, name: str) -> Tensor:
        return self.inputs[name]

    def load(self, parameter: nn.Parameter, suffix: str, transpose: bool = False) -> None:
        """Fill a parameter from the variable whose path ends in `suffix`, or `suffix_<number>`."""
        names = [
            name
            for name in self.arrays
            if name.startswith("var/") and (name.endswith(suffix) or name.rsplit("_", 1)[0].endswith(suffix))
        ]
        assert len(names) == 1, (suffix, names)
        array = torch.from_numpy(self.arrays[names[0]])
        parameter.data = (array.T if transpose else array).reshape(parameter.shape).clone()
        self.variables[names[0]] = (parameter, transpose)

    def load_dense(self, layer: nn.Linear, scope: str) -> None:
        self.load(layer.weight, f"{scope}/kernel", transpose=True)
        self.load(layer.bias, f"{scope}/bias")

    def size(self, suffix: str) -> tuple[int, ...]:
        return next(array.shape for name, array in self.arrays.items() if name.endswith(suffix))


Outputs = dict[str, Tensor]


def _softmax(case: Case) -> Outputs:
    return {"y": weighted_softmax(case["logits"], case["weights"])}


def _single_loss(case: Case) -> Outputs:
    loss, metrics = single_vector_loss(
        case["query"],
        case["pos"],
        case["neg"],
        negative_weights=case.inputs.get("neg_weights"),
        query_weights=case.inputs.get("query_mask"),
        temperature=case.arguments["temperature"],
        margin=case.arguments["margin"],
    )
    return {"loss": loss} | metrics


def _multi_loss(case: Case) -> Outputs:
    temperature = case.arguments["temperature"]
    nll, metrics = multi_vector_loss(
        case["vectors"],
        case["pos"],
        case["neg"],
        case["prob_head"],
        negative_weights=case.inputs.get("neg_weights"),
        query_weights=case.inputs.get("query_mask"),
        temperature=temperature,
        margin=case.arguments["margin"],
        joint=case.arguments["model_prob_y_and_v"],
    )
    auxiliary = {
        "balance_loss": balance_loss(case["prob_head"]),
        "sharpness_loss": sharpness_loss(case["prob_head"]),
        "semantic_loss": semantic_loss(case["heads"], case["pos"], case["prob_head"], temperature),
    }
    aux = sum(auxiliary.values(), torch.zeros(()))
    return {"loss": nll + aux, "aux_loss": aux} | metrics | auxiliary | head_metrics(case["prob_head"])


def _context_attention(case: Case) -> Outputs:
    _, length, dim = case["items"].shape
    module = ContextAttention(dim, length if case.arrays.keys() & _position_names(case) else None)
    _load_context_attention(case, module)
    return {"prob": module(case["items"], case["mask"] != 0, case["context"])}


def _position_names(case: Case) -> set[str]:
    return {name for name in case.arrays if name.startswith("var/") and name.endswith("position_emb")}


def _load_context_attention(case: Case, module: ContextAttention) -> None:
    scope = "prob_itm_ctx" if module.position is None else "prob_itm_psn_ctx"
    if module.position is not None:
        case.load(module.position, "position_emb")
    case.load_dense(module.hidden, f"{scope}/dense")
    case.load_dense(module.score, f"{scope}/dense_1")


def _query_attention(case: Case) -> Outputs:
    transform = any(name.startswith("var/") for name in case.arrays)
    module = QueryAttention(case["items"].shape[-1], transform, case.arguments["temperature"])
    if module.transform is not None:
        case.load_dense(module.transform, "dense")
    return {"prob": module(case["items"], case["mask"] != 0, case["queries"], case["query_mask"] != 0)}


def _router(case: Case) -> Outputs:
    num_heads = case.arrays["out/prob"].shape[-1]
    module = PrototypeRouter(num_heads, case["x"].shape[-1], case.arguments["temperature"])
    case.load(module.prototypes, "proto_embs")
    routing = "log" if case.arguments.get("take_log") else "soft"
    if case.arguments.get("hard_value"):
        routing = "straight_through" if case.arguments.get("soft_grad", True) else "hard"
    return {"prob": module(case["x"], routing)}


def _disentangle(case: Case) -> Outputs:
    prior = any(name.endswith("head_bias") for name in case.arrays)
    num_heads = case.arrays["out/heads"].shape[1]
    module = DisentangleLayer(num_heads, case["items"].shape[-1], prior=prior, equalize=case.arguments["equalize"])
    _load_disentangle(case, module)
    return {"heads": module(case["items"], case["mask"] != 0, case["prob_item"])[0]}


def _load_disentangle(case: Case, module: DisentangleLayer) -> None:
    case.load(module.router.prototypes, "disentangle_layer/proto_router/proto_embs")
    if module.prior is not None:
        case.load(module.prior, "head_bias")
    case.load_dense(module.transform[0], "disentangle_layer/dense")
    case.load_dense(module.transform[2], "disentangle_layer/dense_1")


def _head_aggregation(case: Case) -> Outputs:
    module = HeadAggregation(
        1, case["x"].shape[-1], case.arguments["transform_query"], case.arguments.get("temperature", 1.0)
    )
    if module.transform is not None:
        case.load(module.transform.weight, "dense/kernel")
        case.load(module.transform.bias, "dense/bias")
    query = case["query"][:, None] if "query" in case.inputs else None
    return {"y": module(case["x"][:, None], query)[:, 0]}


def _multipath_aggregation(case: Case) -> Outputs:
    _, paths, _, dim = case["x"].shape
    module = HeadAggregation(paths, dim, case.arguments["transform_query"])
    if module.transform is not None:
        _load_pathwise(case, module.transform)
    return {"y": module(case["x"], case.inputs.get("query"))}


def _pathwise_linear(case: Case) -> Outputs:
    module = PathwiseLinear(*case["x"].shape[1:], case.arrays["out/y"].shape[-1])
    _load_pathwise(case, module)
    return {"y": module(case["x"])}


def _load_pathwise(case: Case, module: PathwiseLinear) -> None:
    case.load(module.weight, "dnn_param/weight")
    case.load(module.bias, "dnn_param/bias")


def _layer_norm(case: Case) -> Outputs:
    module = UnitLayerNorm(case["x"].shape[-1], unit=case.arguments["unit"])
    case.load(module.gamma, "gamma")
    case.load(module.beta, "beta")
    return {"y": module(case["x"])}


def _encoder(case: Case) -> Outputs:
    _, length, dim = case["items"].shape
    num_heads, num_vectors = case.arrays["out/heads"].shape[1], case.arrays["out/vectors"].shape[1]
    config = ModelConfig(embedding_dim=dim, num_heads=num_heads, num_interests=num_vectors)
    encoder = UserEncoder(config, length)
    assert isinstance(encoder.attention, ContextAttention)
    _load_context_attention(case, encoder.attention)
    _load_disentangle(case, encoder.disentangle)
    case.load_dense(encoder.mean_query, "mv_seq_enc/dense")
    mask = case["mask"] != 0
    prob_item = encoder.attention(case["items"], mask, case["context"])
    vectors, heads, _ = encoder.pool(case["items"], mask, prob_item)
    return {"vectors": vectors, "heads": heads}


def _top_vectors(case: Case) -> Outputs:
    return {"y": select_top_vectors(case["vectors"], case["scores"], case.arguments["topk"])}


CASES: dict[str, Callable[[Case], Outputs]] = {
    "weighted_softmax": _softmax,
    "single_vector_softmax_loss": _single_loss,
    "disentangled_multi_vector_loss": _multi_loss,
    "compute_prob_item": _context_attention,
    "compute_prob_item_given_queries": _query_attention,
    "proto_router": _router,
    "disentangle_layer": _disentangle,
    "head_aggregation_abae": _head_aggregation,
    "multipath_head_aggregation_abae": _multipath_aggregation,
    "multipath_fully_connected": _pathwise_linear,
    "layer_normalize": _layer_norm,
    "multi_vector_sequence_encoder": _encoder,
    "select_topk_vectors_by_scores": _top_vectors,
}


def assert_close(actual: Any, expected: np.ndarray, tolerance: float, name: str, rounding: float = 0.0) -> None:
    """Element-wise relative to the value, or to the array's largest entry where the value is small beside it."""
    scale = float(np.abs(expected).max(initial=0.0))
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance * scale + rounding, err_msg=name)


def test_function_matches_reference(golden: Path, golden_arguments: dict[str, Any]) -> None:
    case = Case(golden, golden_arguments)
    assert golden.stem.split("__")[0] in CASES, f"no parity check for {golden.name}: add one, never skip a file"
    outputs = CASES[golden.stem.split("__")[0]](case)

    expected = {name.removeprefix("out/"): array for name, array in case.arrays.items() if name.startswith("out/")}
    for name, array in expected.items():
        actual = outputs[METRICS.get(name.split("/")[-1], name)]
        assert_close(actual.detach(), array, OUTPUT_TOLERANCE, name)
    gradients = {name: array for name, array in case.arrays.items() if name.startswith("grad/")}
    if not gradients:  # the hard routing without gradient
        return
    first = outputs[METRICS.get(next(iter(expected)), next(iter(expected)))]
    (first if "loss" in expected else first.square().sum()).backward()
    # Gradients that are zero in exact arithmetic (a softmax's shift, a norm's direction) are rounding noise in both.
    rounding = ROUNDING * max(np.abs(array).max() for array in gradients.values())
    for name, array in gradients.items():
        assert_close(_gradient(case, name.removeprefix("grad/")), array, GRADIENT_TOLERANCE, name, rounding)


def _gradient(case: Case, name: str) -> np.ndarray:
    if name.startswith("in/"):
        gradient = case[name.removeprefix("in/")].grad
        return np.zeros(case.arrays[name].shape, np.float32) if gradient is None else gradient.numpy()
    parameter, transposed = case.variables[name]
    assert parameter.grad is not None, f"{name} got no gradient"
    return (parameter.grad.T if transposed else parameter.grad).numpy().reshape(case.arrays[name].shape)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_unit_norm_is_the_reference_normalisation(scale: float) -> None:
    assert unit_norm(torch.tensor([[3.0, 4.0]]) * scale).tolist() == [pytest.approx([0.6, 0.8])]
    assert unit_norm(torch.zeros(2)).tolist() == [0.0, 0.0]
