"""The fused item tower gives what the one that was trained gives."""

import pytest
import torch

from prismrec.export.fused import FusedItemEncoder, fuse_item_encoder
from prismrec.model.item_encoder import ItemEncoder

FEATURES = {
    "one feature": (("item_id",), ()),
    "with categories": (("item_id", "brand", "category", "top_category"), (2, 3)),
    "lists": (("item_id", "tags", "tags", "tags", "category", "category", "maker"), (4,)),
}
PRIMES = dict.fromkeys(("item_id", "brand", "category", "top_category", "tags", "maker"), (11, 13, 17, 19))


@pytest.mark.parametrize(("features", "categories"), FEATURES.values(), ids=FEATURES)
@pytest.mark.parametrize("tables", [1, 2, 4])
def test_equal_outputs(features: tuple[str, ...], categories: tuple[int, ...], tables: int) -> None:
    torch.manual_seed(0)
    encoder = ItemEncoder(features, {name: primes[:tables] for name, primes in PRIMES.items()}, 8, categories)
    fused = fuse_item_encoder(encoder)
    assert isinstance(fused, FusedItemEncoder)
    ids = torch.randint(0, 2**40, (3, 5, len(features))) * torch.randint(0, 2, (3, 5, len(features)))  # half are absent
    for found, expected in zip(fused(ids), encoder(ids), strict=True):
        torch.testing.assert_close(found, expected)


def test_features_hashed_in_different_ways_stay_as_they_are() -> None:
    encoder = ItemEncoder(("item_id", "brand"), {"item_id": (11, 13), "brand": (17,)}, 8, ())
    assert fuse_item_encoder(encoder) is encoder
