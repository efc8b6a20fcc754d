"""The doctor finds this machine well, and says so where something is missing."""

import importlib.metadata
import sys
import tempfile
from pathlib import Path

import pytest

from prismrec import doctor
from prismrec.cli import main
from prismrec.doctor import Finding, examine
from prismrec.loss import products


def _texts(state: str) -> str:
    return "\n".join(str(finding) for finding in examine() if str(finding).startswith(state))


def test_this_machine_is_well() -> None:
    findings = list(examine())
    assert all(finding.good for finding in findings)
    said = "\n".join(map(str, findings))
    for name in ("Python", "torch", "faiss", "onnxruntime", "polars", "cores", "temporary folder", "GPU", "extra demo"):
        assert f" {name}" in said
    assert "extra dev" not in said
    assert said.count("computes 1 + 1 + 1 = 3") == 4


def test_states() -> None:
    assert str(Finding(True, "a")) == "ok       a"
    assert str(Finding(False, "a")) == "missing  a"
    assert str(Finding(False, "a", required=False)) == "optional a"


def test_a_package_that_is_too_old_or_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version

    def version(package: str) -> str:
        if package in ("polars", "pymilvus"):
            raise importlib.metadata.PackageNotFoundError(package)
        return "0.1" if package == "numpy" else real(package)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert _texts("missing").splitlines() == ["missing  numpy 0.1 (>=2.0)", "missing  polars not installed (>=1.37)"]
    assert "extra milvus: " in _texts("optional")
    assert "pip install 'prismrec[milvus]'" in _texts("optional")


def test_products_fall_back_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "HAS_ONEDNN", True)
    assert "large float32 products of a CPU: by oneDNN" in _texts("ok")
    monkeypatch.setattr(products, "HAS_ONEDNN", False)
    assert "optional large float32 products of a CPU: by PyTorch's own library" in _texts("optional")


def test_a_package_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert _texts("missing").startswith("missing  faiss does not work: ModuleNotFoundError: ")


def test_a_temporary_folder_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    assert _texts("missing") == "missing  temporary folder: cannot be written to (No such file or directory)"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(doctor, "_MIN_FREE_GIB", 10**9)
    assert f"temporary folder {tmp_path}: " in _texts("missing")


@pytest.mark.parametrize(("found", "status"), [(True, 0), (False, 1)])
def test_the_status_says_whether_all_is_well(
    found: bool, status: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: iter([Finding(found, "first"), Finding(True, "second")]))
    with pytest.raises(SystemExit) as ended:
        main(["doctor"])
    assert ended.value.code == status
    assert capsys.readouterr().out.splitlines()[1] == "ok       second"
