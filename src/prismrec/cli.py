"""The command line: each verb reads one directory and writes another.

A mistake of the user ends in one line on standard error and status 1, without a traceback. Modules are
imported by the verb that needs them, so that `--help` answers at once.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from prismrec.errors import ConfigError, PrismRecError

app = typer.Typer(
    help="Candidate generation with several vectors per user, learned without amplifying popularity.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Store = Annotated[Path, typer.Argument(help="A store, written by `prismrec prepare`.")]
Run = Annotated[Path, typer.Argument(help="A run, written by `prismrec train`.")]
Bundle = Annotated[Path, typer.Argument(help="A bundle, written by `prismrec export`.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. train.epochs=5.")
]


@app.command()
def prepare(
    events: Annotated[Path, typer.Option(help="Events: Parquet or CSV with user, item and time.")],
    out: Annotated[Path, typer.Option(help="The store to write.")],
    items: Annotated[Path | None, typer.Option(help="Catalogue: Parquet or CSV with item and features.")] = None,
    columns: Annotated[
        str, typer.Option(help="Your names of the columns, e.g. user=customer,item=sku,time=bought_at.")
    ] = "",
    settings: Settings = None,
) -> None:
    """Turn tables of events and items into a store, ready for training."""
    from prismrec.config import load_prepare_config
    from prismrec.data.prepare import prepare

    prepare(events, items, out, load_prepare_config(_columns(columns), settings or []))


@app.command()
def train(
    store: Store,
    out: Annotated[Path, typer.Option(help="The run to write.")],
    config: Annotated[Path | None, typer.Option(help="Settings as TOML; see docs/configuration.md.")] = None,
    settings: Settings = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the latest checkpoint of the run.")] = False,
    warm_start: Annotated[Path | None, typer.Option(help="Start from the weights of an older run.")] = None,
) -> None:
    """Train a multi-interest model on a store."""
    from prismrec.config import load_config
    from prismrec.train.trainer import train

    given = config is not None or settings
    train(
        store, out, load_config(config, settings or []) if given or not resume else None,
        resume=resume, warm_start=warm_start,
    )


@app.command()
def evaluate(
    run: Run,
    split: Annotated[str, typer.Option(help="valid or test.")] = "test",
    k: Annotated[str, typer.Option(help="Lengths of the lists.")] = "10,50,100",
    against: Annotated[list[Path] | None, typer.Option(help="Other runs for the same table, e.g. one of V = 1.")] = None,
    pairs: Annotated[Path | None, typer.Option(help="Labelled pairs user_id, item_id, label, for AUC.")] = None,
    seed: Annotated[int, typer.Option(help="Of the confidence intervals.")] = 0,
) -> None:
    """Measure a run over the full catalogue beside baselines; writes report.json and report.html into it."""
    from rich.console import Console

    from prismrec.data.tables import read_table
    from prismrec.evaluate.evaluator import evaluate
    from prismrec.evaluate.report import print_report, write_report

    labelled = None if pairs is None else read_table(pairs)
    report = evaluate(run, split, _numbers(k), against or (), pairs=labelled, seed=seed)  # type: ignore[arg-type]
    write_report(report, run)
    print_report(report, Console())
    typer.echo(f"{run / 'report.html'}")


@app.command()
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="The bundle to write.")],
    user_vectors: Annotated[bool, typer.Option("--user-vectors", help="Also write every known user's vectors.")] = False,
) -> None:
    """Turn a run into a bundle that recommends and serves without PyTorch."""
    from prismrec.export.bundle import export

    typer.echo(f"{export(run, out, user_vectors=user_vectors)}")


@app.command()
def recommend(
    bundle: Bundle,
    out: Annotated[Path, typer.Option(help="The Parquet file to write: user_id, item_id, rank, score, interest.")],
    users: Annotated[
        Path | None,
        typer.Option(help="Users (user_id), or events of known or new users (user_id, item_id, timestamp)."),
    ] = None,
    k: Annotated[int, typer.Option(help="Items per user.")] = 100,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Keep items of the user's history.")] = False,
) -> None:
    """Recommend items to all users of a bundle, or to those of a table."""
    from prismrec.data.tables import read_table
    from prismrec.serve.recommender import Recommender, write_recommendations

    table = None if users is None else read_table(users)
    rows = write_recommendations(Recommender.open(bundle).stream(table, k=k, include_seen=include_seen), out)
    typer.echo(f"{out}: {rows:,} recommendations")


@app.command()
def serve(
    bundle: Bundle,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Serve a bundle over HTTP; the API is described at /docs."""
    import uvicorn

    from prismrec.serve.app import create_app

    uvicorn.run(create_app(bundle), host=host, port=port)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the demo's store, runs and bundle go.")] = Path("demo"),
) -> None:
    """Run everything on a year of real grocery purchases and show what it learned."""
    from prismrec.demo import run_demo

    run_demo(out)


@app.command()
def doctor() -> None:
    """Check that this machine has what PrismRec needs."""
    from prismrec.doctor import examine

    findings = examine()
    for finding in findings:
        typer.echo(finding)
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status."""
    sys.exit(_status(lambda: app(arguments, standalone_mode=True)))


def _status(command: Callable[[], Any]) -> int:
    try:
        command()
    except PrismRecError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'file'}: {error.strerror or error}")
    return 0


def _fail(message: str) -> int:
    typer.echo(f"prismrec: {' '.join(message.split())}", err=True)
    return 1


def _columns(text: str) -> dict[str, str]:
    """`user=customer,time=bought_at` as canonical name -> given name; user, item and time are short for the columns."""
    short = {"user": "user_id", "item": "item_id", "time": "timestamp"}
    mapping = {}
    for pair in filter(None, text.split(",")):
        name, separator, given = (part.strip() for part in pair.partition("="))
        if not (name and separator and given):
            raise ConfigError(f"--columns: expected name=column pairs like user=customer,item=sku, found {pair!r}")
        mapping[short.get(name, name)] = given
    return mapping


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--k: expected whole numbers like 10,50,100, found {text!r}") from error
