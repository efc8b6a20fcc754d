"""Latency, throughput, recall and memory of `prismrec serve`, with a million items and load from a second process.

    python benchmarks/serving.py --work /tmp/serving [--items 1000000] [--seconds 30] [--out benchmarks/results]

D = 128, V = 8, T = 50, k = 20; the model is trained, the catalogue is its 92,331 items and perturbed copies of them
(`serving_bundle.py`). Measured: one client; as many as keep two cores busy; the same while the bundle is changed again
and again. Recall is the share of served items that are as good as the last of an exact search with vectors in 32 bits.
Prints a page, and with --out also writes it there, to serving-<date>.md or, with --int8, serving-int8-<date>.md.
"""

import argparse
import datetime as dt
import json
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from prismrec.data.history import stored_histories
from prismrec.export.reader import INDEX, Bundle, open_bundle
from prismrec.index.exact import ExactIndex
from prismrec.index.merge import retrieve
from serving_bundle import MODEL, NOISE, in_8_bits, million_bundle

K, RECALL_USERS, CLIENTS, SWAP_EVERY = 20, 500, 8, 5.0
MIB = 1024**2


class Server:
    """A running server."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process, self.port = process, port

    def ask(self, **query: object) -> Any:
        """One answer."""
        url = f"http://127.0.0.1:{self.port}/v1/recommend"
        request = urllib.request.Request(url, json.dumps(query).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def stages(self) -> dict[str, float]:
        """Seconds spent in each stage, and in all requests, since the start."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            text = answer.read().decode()
        stages = re.findall(r'prismrec_stage_seconds_sum{stage="(\w+)"} (\S+)', text)
        total = re.findall(r'prismrec_request_seconds_sum{path="/v1/recommend"} (\S+)', text)
        return {**{name: float(value) for name, value in stages}, "request": float(total[0]) if total else 0.0}

    def mib(self) -> float:
        """Resident memory."""
        return psutil.Process(self.process.pid).memory_info().rss / MIB


@contextmanager
def serving(link: Path, settings: list[str]) -> Iterator[Server]:
    """Serve a bundle in a process of its own."""
    command = [sys.executable, "-m", "prismrec", "serve", str(link), "--port", "0"]
    command += [f"--set={setting}" for setting in settings]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    line = next(line for line in process.stderr if "served at" in line)
    port = int(re.findall(r":(\d+),", line)[0])
    log = subprocess.Popen(["cat"], stdin=process.stderr, stdout=subprocess.DEVNULL)  # keeps the pipe from filling
    try:
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait(60)
        log.kill()


def load(server: Server, bodies: Path, clients: int, seconds: float) -> "subprocess.Popen[str]":
    """Start the process that asks."""
    command = [sys.executable, str(Path(__file__).with_name("serving_load.py")), "127.0.0.1", str(server.port)]
    return subprocess.Popen([*command, str(bodies), str(clients), str(seconds)], stdout=subprocess.PIPE, text=True)


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """What it found."""
    found = json.loads(process.communicate()[0])
    latencies = np.array(found["latencies"])
    return {
        "requests/s": len(latencies) / found["seconds"],
        "p50": float(np.median(latencies)),
        "p99": float(np.quantile(latencies, 0.99)),
        "failed": sum(count for status, count in found["statuses"].items() if status != "200"),
        "requests": len(latencies),
    }


def recall(server: Server, bundle: Bundle) -> float:
    """Share of served items as good as the last item of an exact search with the bundle's vectors."""
    store = bundle.store
    users = np.sort(np.random.default_rng(1).permutation(store.num_users)[:RECALL_USERS])
    histories = stored_histories(store, users, store.manifest["max_time"], bundle.config.history)
    vectors = bundle.encoder.encode(histories, store.item_features).vectors
    seen = [np.asarray(store.item[store.offsets[user] : store.offsets[user + 1]], np.int64) for user in users]
    items = bundle.index.vectors(np.arange(1, store.num_items + 1))
    last = retrieve(ExactIndex(items), vectors, K, seen).score[:, -1]
    rows = {item: row for row, item in enumerate(store.item_ids.to_list())}
    shares = []
    for user, interests, threshold in zip(store.user_ids[users].to_list(), vectors, last, strict=True):
        served = [rows[item["item_id"]] for item in server.ask(user_id=user, k=K)["items"]]
        shares.append(((interests @ items[served].T).max(axis=0) >= threshold - 1e-5).sum() / K)
    return statistics.fmean(shares)


def swap_under_load(server: Server, link: Path, bundles: list[Path], bodies: Path, seconds: float) -> dict[str, Any]:
    """Load while the link changes and the server is told."""
    process, swaps, end = load(server, bodies, CLIENTS, seconds), 0, time.monotonic() + seconds - SWAP_EVERY
    while time.monotonic() < end:
        time.sleep(SWAP_EVERY)
        swaps += 1
        other = link.with_name("next")
        other.symlink_to(bundles[swaps % 2])
        other.replace(link)
        server.process.send_signal(signal.SIGHUP)
    return {**result(process), "swaps": swaps}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for store, run and bundles, kept")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=30, help="of each measurement")
    parser.add_argument("--int8", action="store_true", help="serve the encoder in 8 bits, see `prismrec export --int8`")
    parser.add_argument("--set", action="append", default=[], help="setting of the service")
    parser.add_argument("--out", type=Path, help="folder of the results")
    options = parser.parse_args()
    path = million_bundle(options.work, options.items)
    exact = open_bundle(path)
    if options.int8:
        path = in_8_bits(options.work, path)
    twin = path.with_name(f"{path.name}-twin")
    shutil.rmtree(twin, ignore_errors=True)
    shutil.copytree(path, twin, copy_function=os.link)
    link = options.work / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    bodies = options.work / "bodies.jsonl"
    users = exact.store.user_ids.shuffle(seed=0).to_list()
    bodies.write_text("\n".join(json.dumps({"user_id": user, "k": K}) for user in users))
    page = report(measure(exact, link, [path, twin], bodies, options), exact, options.int8)
    print(page)
    if options.out:
        (options.out / f"serving-{'int8-' * options.int8}{dt.datetime.now(dt.UTC).date().isoformat()}.md").write_text(
            page + "\n"
        )


def measure(
    bundle: Bundle, link: Path, bundles: list[Path], bodies: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """All numbers."""
    with serving(link, options.set) as server:
        result(load(server, bodies, 1, 5))
        before = server.stages()
        found: dict[str, Any] = {"one client": result(load(server, bodies, 1, options.seconds))}
        after = server.stages()
        found["stages"] = {name: after[name] - before.get(name, 0) for name in after}
        found[f"{CLIENTS} clients"] = result(load(server, bodies, CLIENTS, options.seconds))
        found["memory"] = server.mib()
        found["recall"] = recall(server, bundle)
        found[f"{CLIENTS} clients, bundle changed"] = swap_under_load(server, link, bundles, bodies, options.seconds)
    return found


def report(found: dict[str, Any], bundle: Bundle, int8: bool) -> str:
    """The page."""
    store, index = bundle.store, bundle.manifest["index"]
    vectors = store.num_items * index["dimension"] * 4 / MIB
    file = (bundle.path / INDEX).stat().st_size / MIB
    lines = [
        f"`serve`, {dt.datetime.now(dt.UTC).date().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, load "
        f"average {os.getloadavg()[0]:.1f} at the end, Python {platform.python_version()}",
        "",
        f"{store.num_items:,} items: {' '.join(MODEL)}{'; --int8' * int8}; vectors of a trained model, and copies of "
        f"them at {NOISE}. k = {K}. Index: {index['kind']} {index['parameters']}, recall@100 "
        f"{index['recall@100']:.4f} of users' lists.",
        "",
        "| load from a second process | requests/s | p50, ms | p99, ms | requests | failed | bundles changed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in (name for name in found if "client" in name):
        row = found[name]
        lines.append(
            f"| {name} | {row['requests/s']:,.0f} | {row['p50']:.2f} | {row['p99']:.2f} | {row['requests']:,} | "
            f"{row['failed']} | {row.get('swaps', 0)} |"
        )
    request = found["stages"].pop("request")
    shares = [f"{name} {seconds / request:.0%}" for name, seconds in found["stages"].items()]
    rest = f"HTTP, JSON and waiting {1 - sum(found['stages'].values()) / request:.0%}"
    lines += [
        "",
        f"Recall@{K} of served lists against exact search: {found['recall']:.4f} ({RECALL_USERS} users).",
        f"Stages of a request, one client: {', '.join([*shares, rest])}.",
        f"Memory: {found['memory']:,.0f} MiB; vectors {vectors:,.0f} MiB, index file {file:,.0f} MiB (it holds the "
        f"vectors): {found['memory'] / file:.2f} times.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
