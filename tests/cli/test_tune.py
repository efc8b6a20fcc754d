"""`prismrec tune`: the best settings in a file that `train` takes."""

from pathlib import Path
from typing import Any

import polars as pl


def test_the_best_settings_are_for_train(made: Any, call: Any, tmp_path: Path) -> None:
    space, search = tmp_path / "space.toml", tmp_path / "search"
    space.write_text('"model.num_interests" = [1, 2, 4]\ntrain.learning_rate = {low = 1e-3, high = 1e-1, log = true}\n')
    few = [f"--set={one}" for one in ("train.batch_size=32", "train.max_steps=4", "train.device=cpu")]
    few += ["--set=model.embedding_dim=16"]
    done = call("tune", made.store, "--out", search, "--space", space, "--trials=2", *few)
    assert done.status == 0
    assert "2 trials, the best first" in done.out
    assert done.out.splitlines()[-1] == str(search / "best.toml")
    assert "trial 001 · 2 of 2 · best recall" in done.err
    more = call("tune", made.store, "--out", search, "--space", space, "--trials=3", *few)
    assert "trial 002 · 3 of 3" in more.err
    assert "trial 001" not in more.err
    assert pl.read_csv(search / "trials.csv")["trial"].to_list() == [0, 1, 2]
    trained = call("train", made.store, "--out", tmp_path / "run", "--config", search / "best.toml")
    assert (trained.status, trained.out) == (0, f"{tmp_path / 'run'}\n")
