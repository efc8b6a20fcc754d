"""EASE against its definition."""

import numpy as np
from peers.ease import ease, item_weights, user_factors
from score import score


def test_weights_are_the_closed_form(shop) -> None:
    chosen = np.zeros((shop.num_users, shop.num_items))
    start, stop = shop.split_bounds("train")
    for user in range(shop.num_users):
        chosen[user, shop.item[start[user] : stop[user]] - 1] = 1
    inverse = np.linalg.inv(chosen.T @ chosen + 10 * np.eye(shop.num_items))
    wanted = -inverse / np.diag(inverse)
    np.fill_diagonal(wanted, 0)
    np.testing.assert_allclose(item_weights(shop, 10.0), wanted, atol=1e-4)


def test_the_form_for_few_users_has_the_same_weights(shop) -> None:
    weights = item_weights(shop, 10.0).numpy()
    left, right = user_factors(shop, 10.0)
    apart = ~np.eye(shop.num_items, dtype=bool)
    np.testing.assert_allclose((left @ right).numpy()[apart], weights[apart], atol=1e-4)


def test_it_finds_the_groups(make_task) -> None:
    task = make_task({"regularization": 10.0})
    ease(task)
    assert score(task.lists_path("test"), task.store, task.queries["test"])["hit_rate@10"]["value"] > 0.9
