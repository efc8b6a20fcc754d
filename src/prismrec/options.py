"""What the values of options mean: lists of numbers, pairs of names, and numbers above zero."""

from collections.abc import Callable
from typing import TypeVar

from prismrec.errors import ConfigError

_N = TypeVar("_N", int, float)


def parse_columns(text: str) -> dict[str, str]:
    """`user=customer,time=bought_at` as our name -> the name given."""
    columns = {}
    for pair in filter(None, text.split(",")):
        ours, separator, given = (part.strip() for part in pair.partition("="))
        if not (ours and separator and given):
            raise ConfigError(f"--columns: expected pairs like user=customer,item=sku, found {pair!r}")
        columns[ours] = given
    return columns


def parse_numbers(option: str, text: str, kind: Callable[[str], _N], example: str) -> list[_N]:
    """`0,0.5,1` as numbers; `example` is what the message of an error shows."""
    try:
        return [kind(number) for number in text.split(",")]
    except ValueError:
        raise ConfigError(f"{option}: expected numbers like {example}, found {text!r}") from None


def check_positive(**options: float | None) -> None:
    """Refuse a number that is not above zero; names are those of the options, with `_` for `-`."""
    for name, number in options.items():
        if number is not None and not number > 0:
            raise ConfigError(f"--{name.replace('_', '-')}: expected a number above 0, found {number:g}")
