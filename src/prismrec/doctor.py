"""What `prismrec doctor` finds on this machine: one finding per requirement, and per thing that is nice to have.

Takes nothing; gives findings one by one. Each package that computes is made to compute something, since
an import alone does not show that its binary fits the machine.
"""

import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

_PACKAGE = "prismrec"
_GIB = 1024**3
_MIN_FREE_GIB = 1


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report."""

    found: bool
    text: str
    required: bool = True

    @property
    def good(self) -> bool:
        """Whether PrismRec can do without whatever is not found."""
        return self.found or not self.required

    def __str__(self) -> str:
        state = "ok" if self.found else "missing" if self.required else "optional"
        return f"{state:<9}{self.text}"


def examine() -> Iterator[Finding]:
    """Examine Python, packages, what they compute, the machine, and the extras."""
    yield _python()
    requirements = [Requirement(text) for text in metadata.requires(_PACKAGE) or ()]
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _package(requirement)
    for name, compute in {"torch": _torch, "faiss": _faiss, "onnxruntime": _onnxruntime, "polars": _polars}.items():
        yield _computation(name, compute)
    yield _processors()
    yield _temporary_folder()
    yield _gpu()
    yield _products()
    for extra in metadata.metadata(_PACKAGE).get_all("Provides-Extra") or ():
        if extra != "dev":
            yield _extra(extra, requirements)


def _python() -> Finding:
    required, found = metadata.metadata(_PACKAGE)["Requires-Python"], platform.python_version()
    return Finding(SpecifierSet(required).contains(found), f"Python {found} ({required})")


def _package(requirement: Requirement) -> Finding:
    found = _version(requirement.name)
    good = found is not None and requirement.specifier.contains(found, prereleases=True)
    return Finding(good, f"{requirement.name} {found or 'not installed'} ({requirement.specifier})")


def _extra(extra: str, requirements: list[Requirement]) -> Finding:
    wanted = [r.name for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
    absent = [name for name in wanted if _version(name) is None]
    remedy = f": {', '.join(absent)} not installed; pip install '{_PACKAGE}[{extra}]'" if absent else ""
    return Finding(not absent, f"extra {extra}{remedy}", required=False)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _computation(name: str, compute: Callable[[], float]) -> Finding:
    try:
        result = compute()
    except Exception as error:  # a binary that does not fit may raise anything
        return Finding(False, f"{name} does not work: {type(error).__name__}: {' '.join(str(error).split())}")
    return Finding(result == 3, f"{name} computes 1 + 1 + 1 = {result:g}")


def _torch() -> float:
    import torch

    return (torch.ones(1, 3) @ torch.ones(3, 1)).item()


def _faiss() -> float:
    import faiss
    import numpy as np

    index = faiss.IndexFlatIP(3)
    index.add(np.ones((1, 3), np.float32))
    return float(index.search(np.ones((1, 3), np.float32), 1)[0][0, 0])


def _onnxruntime() -> float:
    import numpy as np
    import onnxruntime
    from onnx import parser

    graph = '<ir_version: 10, opset_import: ["": 20]> sum (float[1] x) => (float[1] y) { y = Sum(x, x, x) }'
    model = parser.parse_model(graph).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return float(session.run(None, {"x": np.ones(1, np.float32)})[0][0])


def _polars() -> float:
    import polars as pl

    return float(pl.LazyFrame({"x": [1, 1, 1]}).select(pl.col("x").sum()).collect(engine="streaming").item())


def _processors() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / _GIB
    return Finding(True, f"{cores} cores (OMP_NUM_THREADS {threads}), {memory:.1f} GiB of memory")


def _temporary_folder() -> Finding:
    try:
        folder = tempfile.gettempdir()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"prismrec")
        free = shutil.disk_usage(folder).free / _GIB
    except OSError as error:
        return Finding(False, f"temporary folder: cannot be written to ({error.strerror or error})")
    return Finding(free >= _MIN_FREE_GIB, f"temporary folder {folder}: {free:.1f} GiB free (>={_MIN_FREE_GIB})")


def _gpu() -> Finding:
    try:
        import torch

        return Finding(True, f"GPU: {torch.cuda.get_device_name()}", required=False)
    except Exception:  # whether torch works at all is another finding
        return Finding(False, "GPU: none that torch can use; training takes the CPU", required=False)


def _products() -> Finding:
    try:
        from prismrec.loss import products

        found = products.HAS_ONEDNN
    except Exception:  # whether torch works at all is another finding
        found = False
    taken = (
        "by oneDNN" if found else "by PyTorch's own library, slower on AMD's processors: oneDNN is not in this torch"
    )
    return Finding(found, f"large float32 products of a CPU: {taken}", required=False)
