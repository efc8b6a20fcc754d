"""Every single-function golden file: outputs to 1e-5 relative, gradients to 1e-4."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prismrec.config import ModelConfig
from prismrec.loss.contrastive import cosine_metrics, multi_vector_loss, single_vector_loss
from prismrec.loss.regularizers import balance_loss, head_metrics, semantic_loss, sharpness_loss
from prismrec.loss.softmax import weighted_softmax
from prismrec.model.aggregation import HeadAggregation, select_top_vectors
from prismrec.model.attention import ContextAttention, QueryAttention
from prismrec.model.layers import PathwiseLinear, UnitLayerNorm
from prismrec.model.routing import DisentangleLayer, PrototypeRouter, Routing
from prismrec.model.user_encoder import UserEncoder

OUTPUT_TOLERANCE, GRADIENT_TOLERANCE = 1e-5, 1e-4
EPSILON = float(np.finfo(np.float32).eps)
ROUNDING = 8 * EPSILON

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
        self.name = path.stem
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

    def has(self, suffix: str) -> bool:
        return bool(self._variables_named(suffix))

    def _variables_named(self, suffix: str) -> list[str]:
        """Variables whose path ends in `suffix`, a number and a partition aside."""
        ending = re.compile(rf"{suffix}(_\d+)?(/part_\d+)?$")
        return [name for name in self.arrays if name.startswith("var/") and ending.search(name)]

    def load(self, parameter: nn.Parameter, suffix: str, transpose: bool = False) -> None:
        """Fill a parameter from the one variable of that name."""
        names = [name for name in self._variables_named(suffix) if name not in self.variables]
        assert len(names) == 1, (suffix, names)
        array = torch.from_numpy(self.arrays[names[0]])
        parameter.data = (array.T if transpose else array).reshape(parameter.shape).clone()
        self.variables[names[0]] = (parameter, transpose)

    def load_dense(self, layer: nn.Linear, scope: str) -> None:
        self.load(layer.weight, f"{scope}/kernel", transpose=True)
        self.load(layer.bias, f"{scope}/bias")

    @property
    def temperature(self) -> float:
        return float(self.arguments.get("temperature", 0.07))

    @property
    def margin(self) -> float:
        return float(self.arguments.get("margin", 0.0))


Outputs = dict[str, Tensor]


def _softmax(case: Case) -> Outputs:
    axis = case.arguments.get("axis", -1)
    return {"y": weighted_softmax(case["logits"], case["weights"], axis if isinstance(axis, int) else tuple(axis))}


def _single_loss(case: Case) -> Outputs:
    loss = single_vector_loss(
        case["query"],
        case["pos"],
        case["neg"],
        negative_weights=case.inputs.get("neg_weights"),
        query_weights=case.inputs.get("query_mask"),
        temperature=case.temperature,
        margin=case.margin,
    )
    return {"loss": loss, "nll_loss": loss} | _cosine_metrics(case, case["query"][:, None])


def _multi_loss(case: Case) -> Outputs:
    nll = multi_vector_loss(
        case["vectors"],
        case["pos"],
        case["neg"],
        case["prob_head"],
        negative_weights=case.inputs.get("neg_weights"),
        query_weights=case.inputs.get("query_mask"),
        temperature=case.temperature,
        margin=case.margin,
        joint=case.arguments.get("model_prob_y_and_v", "joint" in case.name),
    )
    auxiliary = {
        "balance_loss": balance_loss(case["prob_head"]),
        "sharpness_loss": sharpness_loss(case["prob_head"]),
        "semantic_loss": semantic_loss(case["heads"], case["pos"], case["prob_head"], case.temperature),
    }
    aux = sum(auxiliary.values(), torch.zeros(()))
    metrics = _cosine_metrics(case, case["vectors"]) | auxiliary | head_metrics(case["prob_head"])
    return {"loss": nll + aux, "aux_loss": aux, "nll_loss": nll} | metrics


def _cosine_metrics(case: Case, interests: Tensor) -> Outputs:
    every_pair = torch.ones(len(interests), len(case["neg"]))
    weights = case.inputs.get("neg_weights", every_pair)
    return cosine_metrics(interests, case["pos"], case["neg"], weights, case.inputs.get("query_mask"))


def _context_attention(case: Case) -> Outputs:
    _, length, dim = case["items"].shape
    module = ContextAttention(dim, length if case.has("position_emb") else None)
    _load_context_attention(case, module)
    return {"prob": module(case["items"], case["mask"] != 0, case["context"])}


def _load_context_attention(case: Case, module: ContextAttention) -> None:
    if module.position is not None:
        case.load(module.position, "position_emb")
    case.load_dense(module.hidden, "prob_itm_(psn_)?ctx/dense")
    case.load_dense(module.score, "prob_itm_(psn_)?ctx/dense_1")


def _query_attention(case: Case) -> Outputs:
    module = QueryAttention(case["items"].shape[-1], case.has("dense/kernel"), case.temperature)
    if module.transform is not None:
        case.load_dense(module.transform, "dense")
    return {"prob": module(case["items"], case["mask"] != 0, case["queries"], case["query_mask"] != 0)}


def _router(case: Case) -> Outputs:
    num_heads = case.arrays["out/prob"].shape[-1]
    module = PrototypeRouter(num_heads, case["x"].shape[-1], case.temperature)
    case.load(module.prototypes, "proto_embs")
    if case.arguments.get("take_log", "log" in case.name):
        routing: Routing = "log"
    elif case.arguments.get("hard_value", "hard" in case.name):
        routing = "straight_through" if case.arguments.get("soft_grad", "nograd" not in case.name) else "hard"
    else:
        routing = "soft"
    return {"prob": module(case["x"], routing)}


def _disentangle(case: Case) -> Outputs:
    module = DisentangleLayer(
        case.arrays["out/heads"].shape[1],
        case["items"].shape[-1],
        prior=case.has("head_bias"),
        equalize=case.arguments.get("equalize", False),
        temperature=case.temperature,
    )
    _load_disentangle(case, module)
    return {"heads": module(case["items"], case["mask"] != 0, case["prob_item"])[0]}


def _load_disentangle(case: Case, module: DisentangleLayer) -> None:
    case.load(module.router.prototypes, "disentangle_layer/proto_router/proto_embs")
    if module.prior is not None:
        case.load(module.prior, "head_bias")
    case.load_dense(module.transform[0], "disentangle_layer/dense")
    case.load_dense(module.transform[2], "disentangle_layer/dense_1")


def _head_aggregation(case: Case) -> Outputs:
    temperature = case.arguments.get("temperature", 0.5 if "temp" in case.name else 1.0)
    module = HeadAggregation(1, case["x"].shape[-1], case.has("dense/kernel"), temperature)
    if module.transform is not None:
        case.load(module.transform.weight, "dense/kernel")
        case.load(module.transform.bias, "dense/bias")
    query = case["query"][:, None] if "query" in case.inputs else None
    return {"y": module(case["x"][:, None], query)[:, 0]}


def _multipath_aggregation(case: Case) -> Outputs:
    _, paths, _, dim = case["x"].shape
    module = HeadAggregation(paths, dim, case.has("dnn_param/weight"), case.arguments.get("temperature", 1.0))
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
    module = UnitLayerNorm(
        case["x"].shape[-1], unit=case.arguments.get("unit", False), epsilon=case.arguments.get("epsilon", 1e-8)
    )
    case.load(module.gamma, "gamma")
    case.load(module.beta, "beta")
    return {"y": module(case["x"])}


def _encoder(case: Case) -> Outputs:
    _, length, dim = case["items"].shape
    config = ModelConfig(
        embedding_dim=dim,
        num_heads=case.arrays["out/heads"].shape[1],
        num_interests=case.arrays["out/vectors"].shape[1],
        position_bias=case.has("position_emb"),
        head_prior=case.has("head_bias"),
        equalize_heads=case.arguments.get("equalize", False),
        temperature=case.temperature,
    )
    encoder = UserEncoder(config, length)
    assert isinstance(encoder.attention, ContextAttention)
    _load_context_attention(case, encoder.attention)
    _load_disentangle(case, encoder.disentangle)
    case.load_dense(encoder.mean_query, "dense")  # the one that is left
    mask = case["mask"] != 0
    prob_item = encoder.attention(case["items"], mask, case["context"])
    vectors, heads, _ = encoder.pool(case["items"], mask, prob_item)
    return {"vectors": vectors, "heads": heads}


def _top_vectors(case: Case) -> Outputs:
    return {"y": select_top_vectors(case["vectors"], case["scores"], case.arrays["out/y"].shape[1])}


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
        # A cosine near zero is a sum of terms that cancel: its rounding is that of numbers near one.
        assert_close(actual.detach(), array, OUTPUT_TOLERANCE, name, EPSILON if name.endswith("_cos") else 0.0)
    gradients = {name: array for name, array in case.arrays.items() if name.startswith("grad/")}
    if not gradients:  # the hard routing without gradient
        return
    about = next(name for name in ("loss", "vectors", *expected) if name in expected)
    (outputs[about] if about == "loss" else outputs[about].square().sum()).backward()
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
