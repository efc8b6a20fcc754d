"""Examples of requests for OpenAPI, with ids of the bundle's own."""

from typing import Any

from prismrec.data.store import Store


def of_recommend(store: Store) -> Any:
    """A known user, a new one, and one with wishes."""
    category = next((value for value in store.items.get_column("category", default=[]) if value is not None), None)
    wishes = {"merge": "quota", "diversity": 0.3, "exclude_items": [store.item_ids[0]]}
    if (category is not None and not hasattr(category, "__len__")) or isinstance(category, str):
        wishes["only_categories"] = [category]
    return {
        "a known user": {"value": {"user_id": store.user_ids[0], "k": 10}},
        "a new user": {"value": {"events": [_event(store)], "k": 10}},
        "with wishes": {"value": {"user_id": store.user_ids[0], **wishes}},
    }


def of_similar(store: Store) -> Any:
    """An item of the catalogue."""
    return {"an item": {"value": {"item_id": store.item_ids[0], "k": 10}}}


def of_events(store: Store) -> Any:
    """An event of a known user."""
    return {"an event": {"value": {"user_id": store.user_ids[0], "events": [_event(store)]}}}


def _event(store: Store) -> dict[str, Any]:
    return {"item_id": store.item_ids[0], "timestamp": store.manifest["max_time"]}
