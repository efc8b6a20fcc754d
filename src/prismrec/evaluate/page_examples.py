"""Users in the page of a report, as a person can judge them: what they chose, what is recommended, what came.

Takes a `Report`; gives HTML, empty if no user is shown.
"""

from html import escape

from prismrec.evaluate.findings import Example, ItemName, Report
from prismrec.evaluate.page_parts import name


def examples(report: Report) -> str:
    """Every user shown."""
    found = report.methods[0].diagnostics
    several = found is not None and len(found.found) > 1
    return "\n".join(_example(example, report.headline_k, several) for example in report.examples)


def _example(example: Example, k: int, several: bool) -> str:
    history = [f"<li>{_item(item)}</li>" for item in example.history]
    targets = [_ranked(target, target.rank, target.rank is not None) for target in example.targets]
    recommended = [
        _ranked(item, item.rank, item.is_target, f"interest {item.interest + 1}" if several else "")
        for item in example.recommended
    ]
    lists = (("Lately", history), ("Went on to, with the rank", targets), ("Recommended", recommended))
    columns = "".join(f"<div><h4>{title}</h4><ul>{''.join(rows)}</ul></div>" for title, rows in lists)
    return (
        f'<article class="example"><h3>User {name(example.user_id)}: recall@{k} {example.recall:.2f}</h3>'
        f'<div class="columns">{columns}</div></article>'
    )


def _ranked(item: ItemName, rank: int | None, is_hit: bool, chip: str = "") -> str:
    opening, mark = ('<li class="hit">', ' <small class="mark">found</small>') if is_hit else ("<li>", "")
    place = '<span class="rank" title="not found">–</span>' if rank is None else f'<span class="rank">{rank}</span>'
    found_by = f' <small class="chip">{escape(chip)}</small>' if chip else ""
    return f"{opening}{place}{_item(item)}{mark}{found_by}</li>"


def _item(item: ItemName) -> str:
    shown = name(item.title if item.title is not None else item.item_id)
    return shown if item.category is None else f"{shown} <small>{name(item.category)}</small>"
