"""A plan as tables in the terminal."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from prismrec.train.placement import GIB, TablePlan
from prismrec.train.plan import MemoryPlan, Plan

_MIB, _MANY = 2**20, 8


def print_plan(plan: Plan, console: Console) -> None:
    """Print all of a plan: tables, collisions, memory, communication, speed and notes."""
    _print(
        console, "Tables, MiB", ["feature", "hash", "rows", "width", "weights", "optimiser", "on"], _tables(plan.tables)
    )
    _print(
        console,
        "Ids that share rows: expected of random ids, and found",
        ["feature", "ids", "in a table", "found", "in every table", "found", "the same as another", "found"],
        _collisions(plan),
    )
    titles = ["rank", "tables", "optimiser", "dense weights", "catalogue", "activations", "all"]
    _print(console, f"Memory, MiB, of {plan.memory_per_rank / GIB:.2f} GiB for each rank", titles, _memory(plan))
    _print(
        console,
        "Distinct ids that a rank looks up in a step",
        ["feature", "ids"],
        [[each.feature, f"{each.distinct_per_step:,.0f}"] for each in plan.features],
    )
    sent = plan.communication
    _print(
        console,
        "Communication, MiB that a rank sends in a step",
        ["ids", "rows forward", "rows backward", "dense gradients", "targets", "all"],
        [
            [
                _mib(each)
                for each in (sent.ids, sent.rows_forward, sent.rows_backward, sent.dense, sent.targets, sent.total)
            ]
        ],
    )
    for line in (_speed(plan), "It fits." if plan.fits else "It does not fit.", *plan.notes):
        console.print(line, highlight=False, soft_wrap=True)


def _print(console: Console, title: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for place, name in enumerate(header):
        table.add_column(name, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _tables(tables: Sequence[TablePlan]) -> Iterable[list[str]]:
    for table in tables:
        holders = [rank for rank, rows in enumerate(table.rows_of_rank) if rows]
        where = f"rank {holders[0]}" if len(holders) == 1 else f"{len(holders)} ranks, by rows"
        sizes = [f"{table.rows:,}", str(table.width), _mib(table.weight_bytes), _mib(table.optimizer_bytes)]
        yield [table.feature, str(table.place), *sizes, where]


def _collisions(plan: Plan) -> Iterable[list[str]]:
    for each in plan.features:
        shares = [
            f"{100 * getattr(found, name):.3g} %"
            for name in ("in_a_table", "in_every_table", "the_same")
            for found in (each.expected, each.found)
        ]
        yield [each.feature, f"{each.ids:,}", *shares]


def _memory(plan: Plan) -> Iterable[list[str]]:
    shown = list(enumerate(plan.memory))
    if len(shown) > _MANY:  # those with least and most
        shown.sort(key=lambda each: each[1].total)
        shown = [shown[0], shown[-1]]
    for rank, memory in shown:
        yield [str(rank), *map(_mib, _parts(memory))]


def _parts(memory: MemoryPlan) -> list[float]:
    tables = [memory.tables, memory.table_optimizer]
    return [*tables, memory.dense, memory.catalogue, memory.activations, memory.total]


def _speed(plan: Plan) -> str:
    speed = plan.speed
    size = f"{plan.steps_per_epoch:,} steps an epoch, of {plan.batch_size:,} examples"
    if speed.one_rank is None or speed.all_ranks is None or speed.seconds_per_epoch is None:
        return f"{size}; examples/s unknown: give --examples-per-second of one process, or --measure 20."
    return (
        f"{size}; {speed.all_ranks:,.0f} examples/s in all, if one process trains {speed.one_rank:,.0f}: "
        f"{speed.seconds_per_epoch / 60:,.1f} min an epoch."
    )


def _mib(size: float) -> str:
    return f"{size / _MIB:,.2f}"
