"""Alternating least squares for implicit feedback by the package `implicit`, under the benchmark's protocol.

    python implicit_als.py FOLDER    (see peers/elsewhere.py)

Users are folded in: their factors are computed from the history of each question, so that events
after training count.
"""

import os
import sys
from pathlib import Path

import implicit
import numpy as np
from exchange import Floats, Folder, Questions, Stopwatch
from implicit.als import AlternatingLeastSquares
from scipy.sparse import csr_matrix


def main() -> None:
    """Train on what the folder holds, and answer its questions."""
    folder = Folder(Path(sys.argv[1]))
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    model = AlternatingLeastSquares(**folder.settings, random_state=folder.task["seed"], num_threads=threads)
    stopwatch = Stopwatch()
    train = folder.train()
    user, item = train["user_id"].factorize()[0], train["item"].to_numpy()
    model.fit(matrix(user, item, user.max() + 1, len(folder.items)), show_progress=False)
    taken = stopwatch.read()
    for split in folder.task["splits"]:
        questions = folder.questions(split)
        best = questions.best(fold_in(model, questions, len(folder.items)), model.item_factors, folder.task["k"])
        folder.write(split, questions, best)
    recall = validation_recall(model, folder)
    versions = {"implicit": implicit.__version__}
    folder.finish(model.item_factors.size + model.user_factors.size, taken, valid_recall=recall, versions=versions)


def matrix(user: np.ndarray, item: np.ndarray, users: int, items: int) -> csr_matrix:
    """Which user chose which item, float32 [U, I]; repeated choices count once."""
    chosen = csr_matrix((np.ones(len(user), np.float32), (user, item)), (users, items))
    chosen.data[:] = 1
    return chosen


def fold_in(model: AlternatingLeastSquares, questions: Questions, items: int) -> Floats:
    """Factors of the questions' users, from their histories."""
    histories = matrix(*questions.history, len(questions.users), items)
    return model.recalculate_user(np.arange(len(questions.users)), histories)


def validation_recall(model: AlternatingLeastSquares, folder: Folder) -> float:
    """Recall on the validation, for the record: nothing is chosen by it."""
    questions = folder.questions("validation")
    users = fold_in(model, questions, len(folder.items))
    return questions.recall(questions.best(users, model.item_factors, folder.task["validate_k"]))


if __name__ == "__main__":
    main()
