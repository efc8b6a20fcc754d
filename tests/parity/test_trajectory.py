"""The whole model over the reference's training steps: outputs, metrics, losses and final weights.

Per-step loss to 1e-4 relative; final weights to 1e-4 absolute, except entries whose gradient is at
rounding level, where Adam takes full steps in the direction of noise: they are counted and may be at
most 5 % of a tensor, or one entry of a small one (the bias of a softmax's only logit is one entry, and
its gradient is zero in exact arithmetic).

Everything about the model is read from the file: heads, vectors, tables, moduli and widths from the
shapes, temperature and the like from its note, where there is one.

The reference keeps a weight for each place of its queue, the product one for each distinct item. The weights of
places are worked out here by the reference's definition: they must add up to the product's, and the metrics that
the reference takes over places are then taken by the product's own `cosine_metrics`.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from prismrec.config import EncoderConfig, HashingConfig, LossConfig, ModelConfig
from prismrec.data.schema import Schema
from prismrec.loss.contrastive import cosine_metrics
from prismrec.loss.negatives import Negatives, NegativeSampler, push
from prismrec.model.embeddings import SPARE_ROWS, HashedEmbedding
from prismrec.model.item_encoder import ItemEmbedding
from prismrec.model.layers import unit_norm
from prismrec.model.multi_interest import MultiInterestModel
from prismrec.model.user_encoder import UserContext, UserEmbedding
from prismrec.toml import load_config
from prismrec.train.objective import Examples, Objective

LOSS_TOLERANCE, OUTPUT_TOLERANCE, WEIGHT_TOLERANCE = 1e-4, 1e-4, 1e-4
NOISE_SHARE = 0.05
ROUNDING = 1e-6
"""A gradient below this share of the model's largest is rounding noise of float32 sums."""

REFERENCE = Path(__file__).parents[2] / "benchmarks" / "accuracy" / "configs" / "reference.toml"
FEATURES = {"item_id": "nid", "brand": "seller", "category": "cate", "top_category": "cat1"}
REFERENCE_INPUTS = ("nid", "uid", "cate", "cat1")
ELAPSED = (60, 300, 3600, 86400, 604800)
DWELL = tuple(2**power for power in range(2, 32))
METRICS = {
    "multi/nll_loss": "nll_loss",
    "multi/nw": "negative_weight",
    "multi/min_cos": "cosine_min",
    "multi/max_cos": "cosine_max",
    "multi/avg_cos": "cosine_mean",
    "multi/rk1_acc": "rank1_accuracy",
    "multi_ex/kl_loss": "balance_loss",
    "multi_ex/sharp_loss": "sharpness_loss",
    "multi_ex/semantic_loss": "semantic_loss",
    "multi_ex/max_prob_h": "head_sharpness",
    "multi_ex/max_post_h": "head_usage_max",
    "multi_ex/min_post_h": "head_usage_min",
}


class Trajectory:
    """A golden training run replayed: model, objective and queue built from the shapes in the file."""

    def __init__(self, path: Path, arguments: dict[str, Any]) -> None:
        self.arrays = dict(np.load(path))
        self.learning_rate = arguments.get("learning_rate", 1e-3)
        _, vectors, dim = self.arrays["step0/out/user_vectors"].shape
        heads = self._variable("base_loss/.*proto_embs").shape[0]
        self.config = ModelConfig(
            encoder=EncoderConfig(kind="none"),
            embedding_dim=dim,
            num_heads=heads,
            num_interests=vectors,
            hashing=HashingConfig(primes={feature: self._primes(table) for feature, table in FEATURES.items()}),
            elapsed_boundaries=self._boundaries("rel_time", arguments.get("rel_time_boundaries", ELAPSED)),
            dwell_boundaries=self._boundaries("st_time", arguments.get("st_time_boundaries", DWELL)),
            position_bias=self._has("prob_itm_psn_ctx"),
            head_prior=self._has("head_bias"),
            equalize_heads=arguments.get("equalize", False),
            temperature=arguments.get("temperature", 0.07),
        )
        length = self.arrays["step0/in/user__clk_nid"].shape[1]
        self.model = MultiInterestModel(self.config, Schema(item_features=tuple(FEATURES)), length)
        for position, table in enumerate(FEATURES.values()):
            width = self._variable(f"emb_table/{table}_0/").shape[1]
            self.model.items.embeddings[position] = HashedEmbedding(self._primes(table), dim, width)
        self.queue = torch.from_numpy(  # raw ids, which the product looks up by catalogue row instead
            np.stack([self.arrays[f"queue0/itm_{name}_queue"] for name in REFERENCE_INPUTS], -1)
        )
        found = {
            "joint": arguments.get("model_prob_y_and_v", True),
            "temperature": arguments.get("temperature", 0.07),
            "margin": arguments.get("margin", 0.0),
            "queue_size": len(self.queue),
            "hard_queue_size": len(self.queue) // 2 if self._has_metric("max_hard_cnt") else 0,
            "deduplicate": self._has_metric("max_appear_cnt"),
        }
        loss = LossConfig.model_validate(load_config(REFERENCE).loss.model_dump() | found)
        self.objective = Objective(loss, self.config)
        self.negatives = NegativeSampler(loss, torch.ones(self._largest_id() + 1))
        self.negatives.queue = self.queue[:, 0]
        self.variables = self._load_variables()

    def _has_metric(self, name: str) -> bool:
        return f"step0/out/metric/neg_queue/{name}" in self.arrays

    def _largest_id(self) -> int:
        ids = [array for name, array in self.arrays.items() if name.endswith(("itm_nid_queue", "in/item__nid"))]
        return max(int(array.max()) for array in ids)

    def _has(self, pattern: str) -> bool:
        return any(re.search(f"^var0/.*{pattern}", name) for name in self.arrays)

    def _variable(self, pattern: str) -> np.ndarray:
        return next(array for name, array in self.arrays.items() if re.search(f"^var0/.*{pattern}", name))

    def _primes(self, table: str) -> tuple[int, ...]:
        """A table of `prime + 8` rows for each modulus."""
        count = sum(bool(re.search(rf"^var0/.*emb_table/{table}_\d+/", name)) for name in self.arrays)
        return tuple(len(self._variable(f"emb_table/{table}_{index}/")) - SPARE_ROWS for index in range(count))

    def _boundaries(self, table: str, known: Sequence[int]) -> tuple[int, ...]:
        count = len(self._variable(f"emb_table/{table}_0/")) - SPARE_ROWS
        assert count <= len(known), f"{table} has {count} boundaries, give them in the note of the file"
        return tuple(known[:count])

    def _load_variables(self) -> dict[str, tuple[nn.Parameter, bool]]:
        """Fill every parameter from `var0`; gives the parameter of each variable, and whether it is transposed."""
        users = self.model.users
        attention, disentangle = users.attention, users.disentangle
        found: dict[str, tuple[nn.Parameter, bool]] = {}
        for embedding, table in zip(self.model.items.embeddings, FEATURES.values(), strict=True):
            for index, rows in enumerate(embedding.tables):
                found[f"emb_table/{table}_{index}/"] = (rows.weight, False)
            if embedding.projection is not None:
                found[f"dnn_param/dnn__{table}_0"] = (embedding.projection.weight, True)
        found |= {
            "emb_table/st_time_0/": (users.dwell.table.weight, False),
            "emb_table/rel_time_0/": (users.elapsed.table.weight, False),
            "emb_table/abs_time_0/": (users.time.hour.weight, False),
            "emb_table/abs_time_1/": (users.time.day.weight, False),
            "dnn_param/dnn__abs_time": (users.time.projection.weight, True),
            "position_w_": (users.position_prior, False),
            "proto_embs": (disentangle.router.prototypes, False),
        }
        if disentangle.prior is not None:
            found["head_bias"] = (disentangle.prior, False)
        if attention.position is not None:
            found["position_emb"] = (attention.position, False)
        layers = {
            "ctx_q_as_mlp/dense/": users.co_action.query,
            "ctx_proj_k/dense/": users.co_action.key,
            "prob_itm_(psn_)?ctx/dense/": attention.hidden,
            "prob_itm_(psn_)?ctx/dense_1/": attention.score,
            "disentangle_layer/dense/": disentangle.transform[0],
            "disentangle_layer/dense_1/": disentangle.transform[2],
            "encoder_block/(?!ctx_)[^/]+/dense/": users.mean_query,
        }
        for scope, layer in layers.items():
            found[f"{scope}kernel"] = (layer.weight, True)
            found[f"{scope}bias"] = (layer.bias, False)
        named = {}
        for variable in (name.removeprefix("var0/") for name in self.arrays if name.startswith("var0/")):
            if "/user_" in variable or "dnn__user" in variable:
                continue  # read by the reference but used by nothing; test_unused_user_tables_stay checks them
            if variable.startswith("base_loss"):
                named[variable] = (self.objective.router.prototypes, False)
                continue
            matches = [value for pattern, value in found.items() if re.search(pattern, variable)]
            assert len(matches) == 1, (variable, len(matches))
            named[variable] = matches[0]
        for variable, (parameter, transposed) in named.items():
            array = torch.from_numpy(self.arrays[f"var0/{variable}"])
            parameter.data = (array.T if transposed else array).reshape(parameter.shape).clone()
        parameters = [*self.model.parameters(), *self.objective.parameters()]
        assert {id(p) for p in parameters} == {id(p) for p, _ in named.values()}, "a parameter has no golden variable"
        return named

    def inputs(self, step: int, name: str) -> Tensor:
        return torch.from_numpy(self.arrays[f"step{step}/in/{name}"])

    def forward(self, step: int) -> "Step":
        """One step of the reference: push the batch, encode everything, take the loss."""
        clicks = torch.stack([self.inputs(step, f"user__clk_{name}") for name in REFERENCE_INPUTS], -1)
        positive = torch.stack([self.inputs(step, f"item__{name}") for name in REFERENCE_INPUTS], -1)
        self.queue = push(self.queue, positive)
        dwell, mask = self.inputs(step, "user__clk_st"), clicks[..., 0] != 0
        context = UserContext(
            mask=mask,
            recent=dwell > 0,
            time=self.inputs(step, "user__clk_abs_time"),
            dwell=dwell.abs(),
            context=torch.zeros(*mask.shape, 0, dtype=torch.int64),
            now=self.inputs(step, "user__abs_time"),
            user=self.inputs(step, "user__uid"),
        )
        user = self.model.users(self.model.items(clicks), context)
        target = self.model.items(positive)
        negatives = self.negatives(positive[:, 0])
        entry = (self.queue[:, 0] == negatives.ids[:, None]).int().argmax(-1)
        assert (self.queue[entry, 0] == negatives.ids).all()
        embedded = self.model.items(self.queue[entry])
        moment = torch.arange(len(positive))  # one target each
        loss, metrics = self.objective(Examples(user, moment, target, positive[:, 0], None), negatives, embedded)
        return Step(loss, metrics, user, target, negatives, embedded, *self._of_places(user, target, positive))

    @torch.no_grad()
    def _of_places(
        self, user: UserEmbedding, target: ItemEmbedding, positive: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Weights of the places of the queue [B, Q] and metrics over them, by the reference's definition."""
        places, ids, config = self.model.items(self.queue), self.queue[:, 0], self.objective.config
        hard = config.hard_queue_size
        weights = (positive[:, :1] != ids).float()
        metrics: dict[str, Tensor] = {}
        if hard:
            router = self.objective.router
            alike = router(target.category).argmax(-1)[:, None] == router(places.category[:hard]).argmax(-1)
            weights[:, :hard] *= alike
            counts = alike.sum(-1).float()
            metrics |= {"neg_queue/max_hard_cnt": counts.amax(), "neg_queue/min_hard_cnt": counts.amin()}
        if config.deduplicate:
            appearances = (ids[hard:, None] == ids[hard:]).sum(-1).float()
            weights[:, hard:] /= appearances
            metrics |= {"neg_queue/max_appear_cnt": appearances.amax(), "neg_queue/min_appear_cnt": appearances.amin()}
        cosine = cosine_metrics(user.interests, unit_norm(target.item), unit_norm(places.item), weights)
        names = {ours: theirs for theirs, ours in METRICS.items()}
        return weights, metrics | {names[ours]: value for ours, value in cosine.items()}


class Step(NamedTuple):
    """What one step gave."""

    loss: Tensor
    metrics: dict[str, Tensor]
    user: UserEmbedding
    target: ItemEmbedding
    negatives: Negatives
    embedded: ItemEmbedding
    place_weights: Tensor
    place_metrics: dict[str, Tensor]


class ReferenceAdam:
    """Adam in TensorFlow's form: epsilon is outside the bias correction, and every entry is updated."""

    def __init__(self, parameters: list[nn.Parameter], learning_rate: float) -> None:
        self.parameters = parameters
        self.learning_rate = learning_rate
        self.mean = [torch.zeros_like(p) for p in parameters]
        self.square = [torch.zeros_like(p) for p in parameters]
        self.steps = 0

    @torch.no_grad()
    def step(self) -> list[Tensor]:
        """Update all parameters; gives the gradients that were used."""
        self.steps += 1
        rate = self.learning_rate * (1 - 0.999**self.steps) ** 0.5 / (1 - 0.9**self.steps)
        gradients = []
        for parameter, mean, square in zip(self.parameters, self.mean, self.square, strict=True):
            assert parameter.grad is not None
            gradient = parameter.grad.to_dense()
            mean.mul_(0.9).add_(gradient, alpha=0.1)
            square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
            parameter -= rate * mean / (square.sqrt() + 1e-8)
            parameter.grad = None
            gradients.append(gradient)
        return gradients


def test_trajectory_matches_reference(golden: Path, golden_arguments: dict[str, Any]) -> None:
    run = Trajectory(golden, golden_arguments)
    steps = len({name.split("/")[0] for name in run.arrays if name.startswith("step")})
    adam = ReferenceAdam([parameter for parameter, _ in run.variables.values()], run.learning_rate)
    noisy = [torch.zeros_like(p, dtype=torch.bool) for p in adam.parameters]
    for step in range(steps):
        found = run.forward(step)
        _check_step(run, step, found)
        _check_weights(run, found)
        found.loss.backward()
        gradients = adam.step()
        rounding = ROUNDING * max(gradient.abs().max() for gradient in gradients)
        for mask, gradient in zip(noisy, gradients, strict=True):
            mask |= (gradient != 0) & (gradient.abs() < rounding)

    for mask, (variable, (parameter, transposed)) in zip(noisy, run.variables.items(), strict=True):
        final = run.arrays[f"var{steps}/{variable}"]
        actual = (parameter.detach().T if transposed else parameter.detach()).reshape(final.shape)
        off = (actual - torch.from_numpy(final)).abs() > WEIGHT_TOLERANCE
        noise = (mask.T if transposed else mask).reshape(final.shape)
        assert not (off & ~noise).any(), f"{variable}: {int((off & ~noise).sum())} weights differ"
        allowed = max(1, int(NOISE_SHARE * off.numel()))
        assert off.sum() <= allowed, f"{variable}: {int(off.sum())} of {off.numel()} weights follow noise"


def _check_step(run: Trajectory, step: int, found: Step) -> None:
    expected = {
        name.removeprefix(f"step{step}/out/"): array
        for name, array in run.arrays.items()
        if name.startswith(f"step{step}/out/")
    }
    target = unit_norm(found.target.item)
    metrics = {theirs: found.metrics[ours] for theirs, ours in METRICS.items()} | found.place_metrics
    actual: dict[str, Any] = {
        "loss": found.loss,
        "user_vectors": found.user.interests,
        "positive_item_vectors": target,
        "score": torch.einsum("bvd,bd->bv", found.user.interests, target).amax(-1),
        "negative_item_ids": run.queue[:, 0],
    } | {f"metric/{name}": value for name, value in metrics.items()}
    assert expected.keys() == actual.keys()
    for name, array in expected.items():
        tolerance = LOSS_TOLERANCE if name == "loss" else OUTPUT_TOLERANCE
        scale = float(np.abs(array).max(initial=0.0))
        np.testing.assert_allclose(
            actual[name].detach(), array, rtol=tolerance, atol=tolerance * scale, err_msg=f"step {step}: {name}"
        )


def _check_weights(run: Trajectory, found: Step) -> None:
    """The product's weights of distinct items are the sums of the reference's over their places in the queue."""
    category = run.objective.router(found.target.category).argmax(-1)
    alike = category[:, None] == run.objective.router(found.embedded.category).argmax(-1)
    negatives = found.negatives
    weights = (
        negatives.weight if negatives.alike_weight is None else negatives.alike_weight.where(alike, negatives.weight)
    )
    ids = run.queue[:, 0]
    sums = torch.zeros(len(category), len(negatives.ids))
    sums.index_add_(1, torch.searchsorted(negatives.ids, ids.contiguous()), found.place_weights)
    own = ids[-len(category) :, None] == negatives.ids  # the batch is the queue's newest part
    torch.testing.assert_close(weights.expand_as(sums).masked_fill(own, 0.0), sums)


def test_unused_user_tables_stay(golden: Path) -> None:
    """The reference looks the user id up without using it, which is why `model.user_id` is off by default."""
    arrays = np.load(golden)
    names = [name.removeprefix("var0/") for name in arrays.files if name.startswith("var0/") and "/user_" in name]
    last = max(int(name[3 : name.index("/")]) for name in arrays.files if re.match(r"var\d+/", name))
    for name in names:
        assert arrays[f"var0/{name}"].tolist() == arrays[f"var{last}/{name}"].tolist()
