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
        f"{first.name} finds {_percent(recall.value)} of what users went on to among its first {k} items: recall@{k} "
        f"{interval(recall)} over {recall.users:,} users of the split {report.settings['split']}, from the whole "
        "catalogue."
    )
    baselines = [method for method in report.methods if method.kind == "baseline"]
    if baselines:
        best = max(baselines, key=lambda method: _recall(method, k))
        yield f"{_compared(first, best)}, the best of {len(baselines)} baselines."
    for other in report.methods[1:]:
        if other.kind == "model":
            yield f"{_compared(first, other)}."
    coverage = first.catalogue.get(f"coverage@{k}")
    if coverage is not None:
        yield f"It shows {_percent(coverage)} of the catalogue to anyone."


def _compared(first: Method, other: Method) -> str:
    gap = other.advantage
    if gap is None:
        return f"{first.name} is beside {other.name}"
    return f"That is {_verdict(gap)} {other.name} ({interval(gap)})"


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
