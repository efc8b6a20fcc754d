"""SASRec, gSASRec and eSASRec by RecTools, trained and asked by the benchmark's protocol.

    python rectools_sasrec.py FOLDER    (see peers/elsewhere.py)

SASRec with full softmax, gSASRec (gBCE, arXiv 2308.07192) and eSASRec (LiGR layers and sampled softmax,
arXiv 2508.06450) are settings of RecTools' one model. Two things differ from calling it as it is: the
loss is computed at the positions that hold a target, not at padding, which leaves its value and takes
a fraction of the time; and the weights of the best validation recall are kept.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytorch_lightning
import rectools
import torch
from exchange import Floats, Folder, Ints, Questions, Stopwatch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.lightning import TransformerLightningModule
from rectools.models.nn.transformers.ligr import LiGRLayers
from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers
from torch import Tensor
from torch.nn.functional import cross_entropy

LAYERS = {"sasrec": SASRecTransformerLayers, "ligr": LiGRLayers}
_DENSE_ITEMS = 20_000
"""Up to so many items, scoring all and picking the negatives' is faster than gathering the negatives' vectors."""


def main() -> None:
    """Train on what the folder holds, and answer its questions."""
    folder = Folder(Path(sys.argv[1]))
    seed_everything(folder.task["seed"], verbose=False)
    questions = folder.questions("validation")
    best = KeepBest(questions, len(folder.items), folder.task["validate_k"], folder.settings)
    model = build(folder.settings, best)
    stopwatch = Stopwatch()
    model.fit(as_dataset(folder.train()))
    taken = stopwatch.read()
    module = model.lightning_model
    for split in folder.task["splits"]:
        asked = folder.questions(split)
        folder.write(split, asked, recommend(module, asked, len(folder.items), folder.task["k"]))
    kept = next(callback for callback in model.fit_trainer.callbacks if isinstance(callback, KeepBest))
    folder.finish(
        sum(weight.numel() for weight in module.torch_model.parameters()),
        taken,
        epochs=kept.epoch,
        best_epoch=kept.best_epoch,
        valid_recall=kept.best_recall,
        versions={module.__name__: module.__version__ for module in (rectools, pytorch_lightning, torch)},
    )


def build(settings: dict[str, Any], best: "KeepBest") -> SASRecModel:
    """The model that the settings describe."""
    own = ("layers", "epochs", "patience", "max_cpu_seconds")

    def trainer() -> Trainer:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        return Trainer(max_epochs=settings["epochs"], callbacks=[best], enable_checkpointing=False, devices=1, **quiet)

    return SASRecModel(
        **{name: value for name, value in settings.items() if name not in own},
        transformer_layers_type=LAYERS[settings["layers"]],
        use_key_padding_mask=settings["layers"] == "ligr",
        lightning_module_type=LossAtTargets,
        get_trainer_func=trainer,
    )


def as_dataset(train: pd.DataFrame) -> Dataset:
    """RecTools' form of the training events; the order of the rows is the order in time."""
    return Dataset.construct(
        pd.DataFrame(
            {
                "user_id": train["user_id"],
                "item_id": train["item"],
                "weight": 1.0,
                "datetime": pd.to_datetime(np.arange(len(train)), unit="s"),
            }
        )
    )


class LossAtTargets(TransformerLightningModule):  # type: ignore[misc]
    """RecTools' losses, computed where there is a target."""

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:  # noqa: ARG002
        """Loss of a batch of sequences."""
        items = self.torch_model.item_model.get_all_embeddings()
        there = batch["y"] != 0
        target = batch["y"][there]
        session = self.torch_model.encode_sessions(batch, items)[there]
        if self.loss == "softmax":
            return cross_entropy(session @ items.T, target)
        candidates = torch.cat([target[:, None], batch["negatives"][there]], dim=1)
        if len(items) <= _DENSE_ITEMS:
            logits = (session @ items.T).gather(1, candidates)
        else:
            logits = (items[candidates] @ session[:, :, None]).squeeze(2)
        return self.loss_calculator(logits[None], target[None], batch["yw"][there][None])


class KeepBest(Callback):  # type: ignore[misc]
    """After each epoch: validation recall, the best weights, and whether to go on."""

    def __init__(self, questions: Questions, num_items: int, k: int, settings: dict[str, Any]) -> None:
        self.questions, self.num_items, self.k = questions, num_items, k
        self.patience, self.max_cpu_seconds = settings["patience"], settings["max_cpu_seconds"]
        self.epoch = self.best_epoch = 0
        self.best_recall = -1.0
        self.stopwatch = Stopwatch()
        self.best: dict[str, Tensor] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: TransformerLightningModule) -> None:
        """Validate."""
        self.epoch += 1
        recall = self.questions.recall(recommend(pl_module, self.questions, self.num_items, self.k))
        pl_module.train()
        spent = self.stopwatch.cpu()
        print(f"epoch {self.epoch}: validation recall {recall:.4f}, {spent:,.0f} s of processor time", flush=True)
        if recall > self.best_recall:
            self.best_recall, self.best_epoch = recall, self.epoch
            self.best = copy.deepcopy(pl_module.torch_model.state_dict())
        late = 0 < self.max_cpu_seconds <= spent
        trainer.should_stop = late or self.epoch - self.best_epoch >= self.patience

    def on_train_end(self, trainer: Trainer, pl_module: TransformerLightningModule) -> None:  # noqa: ARG002
        """Put the best weights back."""
        pl_module.torch_model.load_state_dict(self.best)


def recommend(module: TransformerLightningModule, questions: Questions, num_items: int, k: int) -> Ints:
    """The k best items of each question, item numbers [U, k]."""
    known = np.asarray(module.data_preparator.get_known_item_ids(), np.int64)
    internal = np.zeros(num_items, np.int64)
    internal[known] = np.arange(1, len(known) + 1)
    vectors = np.full((num_items, module.torch_model.item_model.get_all_embeddings().shape[1]), np.nan, np.float32)
    module.torch_model.eval()
    with torch.no_grad():
        items = module.torch_model.item_model.get_all_embeddings()
        users = encode(module, questions, internal, items)
    vectors[known] = items[1:].cpu().numpy()
    return questions.best(users, vectors, k)


def encode(module: TransformerLightningModule, questions: Questions, internal: Ints, items: Tensor) -> Floats:
    """Vectors of the users, [U, D], from their newest events of known items."""
    user, item = questions.history
    item = internal[item]
    user, item = user[item > 0], item[item > 0]
    length = module.data_preparator.session_max_len
    back = np.searchsorted(user, user, side="right") - np.arange(len(user))  # 1 is the newest
    sessions = np.zeros((len(questions.users), length), np.int64)
    newest = back <= length
    sessions[user[newest], -back[newest]] = item[newest]
    encoded = [
        module.torch_model.encode_sessions({"x": block.to(items.device)}, items)[:, -1].cpu()
        for block in torch.from_numpy(sessions).split(256)
    ]
    return torch.cat(encoded).numpy()


if __name__ == "__main__":
    main()
