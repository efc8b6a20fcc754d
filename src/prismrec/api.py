"""The few names that a notebook needs.

from prismrec import Retriever

recommendations = Retriever({"train.epochs": 5}).fit(events, items).recommend(k=100)  # see `prismrec.retriever`

The same verb by verb, each from one directory to another:

from prismrec.api import Config, Recommender, append, evaluate, export, prepare, train, tune

prepare(events, items, Path("store"))            # paths, Polars frames or pandas frames
train(Path("store"), Path("run"), Config())      # or load_config(Path("settings.toml"))
tune(Path("store"), Path("search"), Path("space.toml"), trials=30)  # train with the best: search/best.toml
append(Path("store"), new_events)                # a new day, and a run that goes on with it
train(Path("store"), Path("newer"), continue_from=Path("run"))
report = evaluate(Path("run"), "test")           # a pydantic model, beside the baselines
charts.trade_offs(report); frames.metrics(report)  # its figures, as charts of Altair and as Polars frames
export(Path("run"), Path("bundle"))
extend(Path("bundle"), new_items, Path("extended"))  # items that came after training, by their features alone
recommendations = Recommender.open(Path("bundle")).recommend(k=100)  # a Polars frame
"""

from prismrec.config import Config, PrepareConfig
from prismrec.data.append import append
from prismrec.data.prepare import prepare
from prismrec.evaluate import charts, frames
from prismrec.evaluate.evaluator import evaluate
from prismrec.export.bundle import export
from prismrec.export.extend import extend
from prismrec.retriever import Retriever
from prismrec.serve.recommender import Recommender
from prismrec.toml import load_config
from prismrec.train.trainer import train
from prismrec.train.tune import tune

__all__ = [
    "Config",
    "PrepareConfig",
    "Recommender",
    "Retriever",
    "append",
    "charts",
    "evaluate",
    "export",
    "extend",
    "frames",
    "load_config",
    "prepare",
    "train",
    "tune",
]
