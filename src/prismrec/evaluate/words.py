"""What an evaluation found in a few sentences, losses as plainly as wins."""

from collections.abc import Iterator

from prismrec.evaluate.bootstrap import Estimate
from prismrec.evaluate.findings import Method, Report
from prismrec.evaluate.tables import interval


def in_words(report: Report) -> Iterator[str]:
    """The headline number, how it compares with the best baseline, and with other runs."""
    first, k = report.methods[0], report.headline_k
    recall = first.metrics.get(f"recall@{k}")
    if recall is None:
        return
    yield (
        f"{_named(first)} finds {_percent(recall.value)} of what users went on to among its first {k} items: "
        f"recall@{k} {interval(recall)} over {recall.users:,} users of the split {report.settings['split']}, from the "
        "whole catalogue."
    )
    best = best_baseline(report)
    if best is not None:
        number = sum(method.kind == "baseline" for method in report.methods)
        yield f"{_compared(first, best)}, the best of {number} baselines."
    for other in report.methods[1:]:
        if other.kind == "model":
            yield f"{_compared(first, other)}."
    coverage = first.catalogue.get(f"coverage@{k}")
    if coverage is not None:
        yield f"It shows {_percent(coverage)} of the catalogue to anyone."


def best_baseline(report: Report) -> Method | None:
    """The baseline of the highest recall at the headline k."""
    baselines = (method for method in report.methods if method.kind == "baseline")
    return max(baselines, key=lambda method: _recall(method, report.headline_k), default=None)


def _named(method: Method) -> str:
    """A name whose direction ends with it, whatever script it is in (Unicode's isolates)."""
    return f"\u2068{method.name}\u2069"


def _compared(first: Method, other: Method) -> str:
    gap = other.advantage
    if gap is None:
        return f"{_named(first)} is beside {_named(other)}"
    return f"That is {_verdict(gap)} {_named(other)} ({interval(gap)})"


def _verdict(gap: Estimate) -> str:
    if gap.low > 0:
        return f"{gap.value:.4f} more than"
    if gap.high < 0:
        return f"{-gap.value:.4f} less than"
    return "not to be told apart from"


def _recall(method: Method, k: int) -> float:
    estimate = method.metrics.get(f"recall@{k}")
    return 0.0 if estimate is None else estimate.value


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
