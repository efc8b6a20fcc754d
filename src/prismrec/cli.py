"""The command line: each verb reads one directory and writes another.

A mistake of the user ends in one line on standard error and status 1, without a traceback. Results go
to standard output, progress and warnings to standard error. Modules are imported by the verb that
needs them, so that `--help` answers at once.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, cast

import typer

from prismrec.errors import ConfigError, PrismRecError, RankError
from prismrec.options import check_positive, parse_columns, parse_numbers

_INTERRUPTED = 130

app = typer.Typer(
    help="Candidate generation with several vectors per user, learned without amplifying popularity.",
    epilog="A data set becomes recommendations by prepare, train, export and recommend, in this order.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Store = Annotated[Path, typer.Argument(help="A store, written by prepare.")]
Run = Annotated[Path, typer.Argument(help="A run, written by train.")]
Bundle = Annotated[Path, typer.Argument(help="A bundle, written by export.")]
Engine = Annotated[
    str,
    typer.Option(metavar="local|ray", help="Where parts are worked on: one by one here, or many at once with Ray."),
]


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"prismrec {version('prismrec')}")
        raise typer.Exit


def _example(arguments: str) -> str:
    return f"\b\nExample:\n  prismrec {arguments}"  # \b keeps the lines as they are


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


@app.command(
    epilog=_example("prepare --events events.parquet --items items.parquet --columns time=bought_at --out store")
)
def prepare(
    events: Annotated[
        str,
        typer.Option(
            help="Parquet or CSV, a folder of such files, or a URL such as s3://bucket/events/: user_id, item_id, "
            "timestamp, optional dwell, weight and uniform (exposed at random), and columns of context."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The store to write; an earlier one is replaced.")],
    items: Annotated[
        str | None, typer.Option(help="The catalogue, likewise: item_id, features such as category, and title.")
    ] = None,
    columns: Annotated[
        str,
        typer.Option(metavar="OURS=YOURS,...", help="Your names of columns, e.g. user=customer,item=sku,time=day."),
    ] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. split=global_time; may be repeated."),
    ] = None,
    engine: Engine = "local",
) -> None:
    """Turn tables of events and items into a store.

    A killed command goes on with what is left when it is given again.
    """
    from prismrec.data.prepare import prepare
    from prismrec.engine import open_engine
    from prismrec.toml import load_prepare_config

    config = load_prepare_config(parse_columns(columns), settings or [])
    prepare(events, items, out, config, engine=open_engine(engine))
    typer.echo(out)


@app.command(epilog=_example("append store --events monday.parquet --items new_items.parquet"))
def append(
    store: Store,
    events: Annotated[
        str,
        typer.Option(
            help="Parquet or CSV, a folder of such files, or a URL, with the columns that the store was made of."
        ),
    ],
    items: Annotated[
        str | None, typer.Option(help="New items, likewise; those that are in the catalogue stay as they are.")
    ] = None,
    columns: Annotated[
        str, typer.Option(metavar="OURS=YOURS,...", help="Your names of columns; by default as given to prepare.")
    ] = "",
    valid_from: Annotated[
        int | None, typer.Option(help="Of a split by time: new first moment of validation, in seconds.")
    ] = None,
    test_from: Annotated[int | None, typer.Option(help="Likewise of testing.")] = None,
    late: Annotated[
        str, typer.Option(help="refuse or drop events that are not newer than their user's newest in the store.")
    ] = "refuse",
) -> None:
    """Append newer events to a store, which is not rewritten.

    Splits move on as the store's settings say: the newest events are for testing and validation, those before them
    for training. Continue a run on what is new with train --continue-from.
    """
    from prismrec.data.append import append

    named = parse_columns(columns) if columns else None
    append(store, events, items, columns=named, valid_from=valid_from, test_from=test_from, late=late)
    typer.echo(store)


@app.command(epilog=_example("compact store --out store"))
def compact(
    store: Store,
    out: Annotated[Path, typer.Option(help="The store to write; the same path rewrites it in place.")],
) -> None:
    """Write a store with appended parts as one piece.

    Runs on its newest state can be continued with the new one, runs on earlier states cannot; none can be resumed.
    """
    from prismrec.artifact import alone
    from prismrec.data.compact import compact
    from prismrec.data.store import KIND, Store

    with alone(store, KIND):  # nothing is appended meanwhile, which would be lost
        typer.echo(compact(Store.open(store), out))


@app.command(epilog=_example("train store --out run --set train.epochs=5 --set model.num_interests=4"))
def train(
    store: Store,
    out: Annotated[Path, typer.Option(help="The run to write; must not exist, unless with --resume.")],
    config: Annotated[Path | None, typer.Option(help="Settings in a TOML file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. train.epochs=5; may be repeated."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the latest checkpoint of the run, with its settings.")
    ] = False,
    warm_start: Annotated[
        Path | None, typer.Option(help="An older run whose weights are taken where they fit.")
    ] = None,
    continue_from: Annotated[
        Path | None,
        typer.Option(
            help="A run on this store before something was appended: goes on from its state and settings, on the "
            "events that are new to it."
        ),
    ] = None,
    nproc: Annotated[
        int, typer.Option(min=1, help="Processes on this machine that train together, one for each GPU if it has any.")
    ] = 1,
    restarts: Annotated[
        int, typer.Option(min=0, help="Of several processes: how often all are started again after one was lost.")
    ] = 0,
) -> None:
    """Train a multi-interest model on a store.

    Several processes divide the embedding tables and every batch; torchrun can start them too, on many machines.
    """
    from prismrec.toml import load_config

    run_decides = resume and config is None and not settings
    given = None if run_decides else load_config(config, settings or [])
    if nproc > 1:
        from prismrec.train.launch import run_in_processes
        from prismrec.train.settings import check_place

        check_place(out, resume=resume)  # a restart would take a run that is there for its own
        arguments = ["train", str(store), "--out", str(out), *(f"--set={setting}" for setting in settings or [])]
        for name, path in (("config", config), ("warm-start", warm_start), ("continue-from", continue_from)):
            arguments += [] if path is None else [f"--{name}", str(path)]
        raise typer.Exit(run_in_processes(arguments + ["--resume"] * resume, nproc, restarts))
    from prismrec.train.continuation import continued_settings
    from prismrec.train.distributed import is_first
    from prismrec.train.trainer import train

    if continue_from is not None and config is None and not run_decides:
        given = continued_settings(continue_from, settings or [])
    path = train(store, out, given, resume=resume, warm_start=warm_start, continue_from=continue_from)
    if is_first():
        typer.echo(path)


@app.command(epilog=_example("plan store --nproc 8 --nodes 2 --memory 40 --bandwidth 10 --examples-per-second 6000"))
def plan(
    store: Store,
    config: Annotated[Path | None, typer.Option(help="Settings of training in a TOML file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. train.batch_size=8192; may be repeated."),
    ] = None,
    nproc: Annotated[int, typer.Option(min=1, help="Processes on each machine.")] = 1,
    nodes: Annotated[int, typer.Option(min=1, help="Machines.")] = 1,
    memory: Annotated[
        float | None,
        typer.Option(help="GiB that each process has, of its GPU if it has one; by default as on this machine."),
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(help="GB/s that each process can send; without, communication takes no time.")
    ] = None,
    examples_per_second: Annotated[
        float | None, typer.Option(help="That one process trains of its part of a batch, for an estimate.")
    ] = None,
    measure: Annotated[
        int, typer.Option(min=0, metavar="STEPS", help="Find that by training so many steps here; nothing is kept.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what training a store would take, without training.

    Prints tables and where they go, bytes of each process, ids that share rows, communication, examples/s. Tables may
    be larger than this machine's memory.
    """
    from rich.console import Console

    from prismrec.data.store import Store
    from prismrec.toml import load_config
    from prismrec.train.placement import describe_cluster
    from prismrec.train.plan import make_plan
    from prismrec.train.plan_tables import print_plan
    from prismrec.train.rate import measure_rate

    check_positive(memory=memory, bandwidth=bandwidth, examples_per_second=examples_per_second)
    given, opened = load_config(config, settings or []), Store.open(store)
    cluster = describe_cluster(nproc, nodes, given.train.device, memory, bandwidth)
    rate = measure_rate(opened, given, measure, cluster.ranks) if measure else examples_per_second
    planned = make_plan(opened, given, cluster, rate)
    if as_json:
        typer.echo(planned.model_dump_json(indent=2))
    else:
        print_plan(planned, Console())


@app.command(epilog=_example("tune store --out search --space space.toml --trials 30 --set train.epochs=5"))
def tune(
    store: Store,
    out: Annotated[Path, typer.Option(help="The directory of the search; one that was killed goes on.")],
    space: Annotated[
        Path,
        typer.Option(
            help='TOML of what to try: "model.num_interests" = [1, 2, 4], or "train.learning_rate" = '
            "{low = 1e-4, high = 1e-2, log = true}."
        ),
    ],
    trials: Annotated[
        int, typer.Option(min=1, help="How many settings to try, those of an earlier call included.")
    ] = 20,
    config: Annotated[Path | None, typer.Option(help="Settings of all trials in a TOML file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of all trials; may be repeated."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of what is tried.")] = 0,
) -> None:
    """Search for the settings of the best validation recall.

    Prints the best trials, each a run in OUT/trials, and writes OUT/trials.csv and OUT/best.toml, which train --config
    takes. Needs the extra tune. Test data is never looked at.
    """
    from rich.console import Console

    from prismrec.toml import load_config
    from prismrec.train.tune import BEST, print_trials, tune

    given = load_config(config, settings or [])
    print_trials(tune(store, out, space, trials=trials, config=given, seed=seed), Console())
    typer.echo(out / BEST)


@app.command(epilog=_example("evaluate run --split test --k 10,50,100"))
def evaluate(
    run: Run,
    split: Annotated[str, typer.Option(help="valid or test.")] = "test",
    k: Annotated[
        str | None,
        typer.Option(metavar="K,...", help="Lengths of the lists; by default 10,50,100 or what the catalogue allows."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Another run on the same store, for the same tables, e.g. one of V = 1; may be repeated."),
    ] = None,
    popularity: Annotated[
        str | None,
        typer.Option(
            metavar="P,...", help="Positions of this dial, from 0 to 1, each a row; by default as configured."
        ),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="Labelled pairs for AUC: Parquet or CSV with user_id, item_id, label.")
    ] = None,
    dial: Annotated[
        bool,
        typer.Option("--dial/--no-dial", help="Also measure accuracy against coverage over the dial of popularity."),
    ] = True,
    examples: Annotated[
        int,
        typer.Option(min=0, help="Users shown with id and history, of good lists and of bad ones each; 0 for nobody."),
    ] = 2,
    seed: Annotated[int, typer.Option(help="Of the confidence intervals and the examples.")] = 0,
) -> None:
    """Measure a run over the full catalogue, beside baselines.

    Prints tables and writes report.json and report.html into the run.
    """
    from rich.console import Console

    from prismrec.data.store import Split
    from prismrec.data.tables import read_table
    from prismrec.evaluate.evaluator import evaluate
    from prismrec.evaluate.report import HTML_FILE, print_report, write_report

    labelled = None if pairs is None else read_table(pairs)
    report = evaluate(
        run,
        cast(Split, split),
        None if k is None else parse_numbers("--k", k, int, "10,50,100"),
        against or (),
        popularity=() if popularity is None else parse_numbers("--popularity", popularity, float, "0,0.5,1"),
        pairs=labelled,
        dial=dial,
        examples=examples,
        seed=seed,
    )
    write_report(report, run)
    print_report(report, Console())
    typer.echo(run / HTML_FILE)


@app.command(epilog=_example("export run --out bundle"))
def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="The bundle to write; an earlier one is replaced.")],
    user_vectors: Annotated[
        bool, typer.Option("--user-vectors", help="Also write the vectors of every known user.")
    ] = False,
    int8: Annotated[
        bool,
        typer.Option("--int8", help="Encode users in 8 bits: faster, by vectors that differ a little (mean cosine)."),
    ] = False,
    popularity: Annotated[
        float | None, typer.Option(help="Position of this dial, from 0 to 1; by default as configured.")
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option(
            help="A folder or URL: also write there the vectors of all items and known users, part by part, into "
            "items/ and users/."
        ),
    ] = None,
    engine: Engine = "local",
) -> None:
    """Turn a run into a bundle, which needs no PyTorch."""
    from prismrec.engine import open_engine
    from prismrec.export.bundle import export

    parts = open_engine(engine)
    typer.echo(
        export(run, out, user_vectors=user_vectors, int8=int8, popularity=popularity, vectors=vectors, engine=parts)
    )


@app.command(epilog=_example("extend bundle --items new.parquet --out extended"))
def extend(
    bundle: Bundle,
    items: Annotated[
        Path,
        typer.Option(
            help="Parquet or CSV of items that the catalogue lacks, with the columns of the catalogue: item_id, "
            "features, title. A feature left out is none for all of them."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The bundle to write; an earlier one is replaced.")],
) -> None:
    """Add items to a bundle by their features alone.

    Neither training nor PyTorch is needed.
    """
    from prismrec.export.extend import extend

    typer.echo(extend(bundle, items, out))


@app.command(epilog=_example("recommend bundle --users users.parquet --k 100 --out recs.parquet"))
def recommend(
    bundle: Bundle,
    out: Annotated[
        str,
        typer.Option(
            help="The Parquet file to write: user_id, item_id, rank, score, interest; or a folder, named with a / at "
            "its end, for a file of each part of the users. Either may be a URL such as s3://bucket/recs/."
        ),
    ],
    users: Annotated[
        str | None,
        typer.Option(
            help="Parquet or CSV, a folder of such files, or a URL: of known users (user_id alone), or of events of "
            "known or new users (user_id, item_id, timestamp, optional dwell and context); every known user by default."
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="Items per user.")] = 100,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Keep items of the user's history.")] = False,
    engine: Engine = "local",
) -> None:
    """Write recommendations for many users to Parquet.

    Into a folder, a killed command goes on with the parts that are left when it is given again.
    """
    from prismrec.data.tables import read_table
    from prismrec.engine import open_engine
    from prismrec.locations import fetched, names_folder
    from prismrec.serve.bulk import recommend_parts
    from prismrec.serve.recommender import Recommender, write_recommendations

    if names_folder(out):
        parts = open_engine(engine)
        counts = recommend_parts(bundle, out, users, k=k, include_seen=include_seen, engine=parts)
    elif engine != "local":
        raise ConfigError(f"--engine {engine} writes parts: expected a folder, such as --out {out}/, found {out}")
    else:
        table = None
        if users is not None:
            with fetched(users) as path:
                table = read_table(path)
        counts = write_recommendations(Recommender.open(bundle).stream(table, k=k, include_seen=include_seen), out)
    typer.echo(f"{out}: {counts.users:,} users, {counts.rows:,} recommendations")


@app.command(epilog=_example("load bundle --to postgresql://me:secret@localhost/vectors"))
def load(
    bundle: Bundle,
    to: Annotated[
        str, typer.Option(help="postgresql://USER:PASSWORD@HOST/DATABASE, milvus:FILE.db or milvus+http://HOST:PORT.")
    ],
) -> None:
    """Write a bundle's item vectors to PostgreSQL or Milvus.

    There `serve --index` searches them. After a failure the same command goes on where it stopped.
    """
    from rich.console import Console

    from prismrec.serve.opening import load_vectors

    typer.echo(load_vectors(bundle, to, Console(stderr=True)))


@app.command(epilog=_example("serve bundle --port 8000 --events redis://localhost:6379/0 --set max_k=200"))
def serve(
    bundle: Annotated[Path, typer.Argument(help="A bundle, written by export, or a link to one.")],
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is all of them.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    index: Annotated[
        str | None,
        typer.Option(help="Where load put the vectors (postgresql://..., milvus:...); the bundle's index by default."),
    ] = None,
    events: Annotated[
        str | None,
        typer.Option(help="Where users' new events are kept: a directory (BUNDLE.events by default), or redis://..."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings of the service in a TOML file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. max_k=200; may be repeated."),
    ] = None,
) -> None:
    """Serve a bundle over HTTP, until Ctrl-C or SIGTERM.

    The running server describes its requests at /docs. Clients must send the key in the environment variable
    PRISMREC_API_KEY, if it is set. SIGHUP serves the bundle that is now at the path, and no request fails.
    """
    import os

    # before Faiss is loaded: a search of a millisecond gains from a second thread, and loses to more that must be woken
    os.environ.setdefault("OMP_NUM_THREADS", str(min(2, os.cpu_count() or 1)))

    from prismrec.serve.memory import keep_little_freed_memory

    keep_little_freed_memory()

    from prismrec.serve.server import run_server
    from prismrec.serve.settings import ServeConfig
    from prismrec.toml import load_settings

    serving = load_settings(ServeConfig, config, settings or [])
    say = partial(typer.echo, err=True)
    run_server(bundle, serving, host=host, port=port, index=index, events=events, say=say)


@app.command(epilog=_example("demo --out demo"))
def demo(
    out: Annotated[Path, typer.Option(help="Where the demo's store, runs and bundle go.")] = Path("demo"),
) -> None:
    """Run everything on a year of real grocery purchases."""
    from prismrec.demo import run_demo

    run_demo(out)


@app.command(epilog=_example("doctor"))
def doctor() -> None:
    """Check that this machine has what PrismRec needs.

    Prints one line per finding; the status is 1 if something required is missing.
    """
    from prismrec.doctor import examine

    good = True
    for finding in examine():
        typer.echo(finding)
        good &= finding.good
    if not good:
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its status: 1 after a user's mistake, 2 after wrong usage."""
    try:
        app(arguments, prog_name="prismrec")
    except RankError:
        sys.exit(RankError.STATUS)  # another process says why
    except PrismRecError as error:
        _fail(str(error), 1)
    except OSError as error:
        reason = error.strerror or str(error)
        _fail(f"{error.filename}: {reason}" if error.filename else reason, 1)
    except MemoryError as error:
        _fail(f"expected memory for what was asked, found too little: {str(error) or 'no more is free'}", 1)
    except SystemExit as error:
        if error.code == _INTERRUPTED:
            _fail("interrupted", _INTERRUPTED)
        raise


def _fail(message: str, status: int) -> None:
    typer.echo(f"prismrec: {' '.join(message.split())}", err=True)
    sys.exit(status)
