"""A graph from who knows where is not run."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from prismrec.errors import ArtifactError
from prismrec.export.onnx import _export
from prismrec.export.session import open_session


def _graph(*nodes: onnx.NodeProto, **parts: list[onnx.TensorProto]) -> onnx.ModelProto:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "encoder", ends[:1], ends[1:], **parts)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _loop() -> onnx.ModelProto:
    body = _graph(helper.make_node("Identity", ["x"], ["y"])).graph
    return _graph(helper.make_node("If", ["x"], ["y"], then_branch=body, else_branch=body))


def _outside() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones(2, np.float32), "secret")
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../../etc/hostname")
    return _graph(helper.make_node("Add", ["x", "secret"], ["y"]), initializer=[weight])


def _outside_constant() -> onnx.ModelProto:
    model = _outside()
    (weight,) = model.graph.initializer
    nodes = [helper.make_node("Constant", [], ["secret"], value=weight), *model.graph.node]
    return _graph(*nodes)


def _sparse_constant() -> onnx.ModelProto:
    values = numpy_helper.from_array(np.ones(2, np.float32), "values")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.arange(2), "places"), [2])
    return _graph(
        helper.make_node("Constant", [], ["ones"], sparse_value=sparse), helper.make_node("Add", ["x", "ones"], ["y"])
    )


def _function() -> onnx.ModelProto:
    model = _graph(helper.make_node("Identity", ["x"], ["y"]))
    node = helper.make_node("Relu", ["x"], ["y"])
    model.functions.append(helper.make_function("own", "Relu", ["x"], ["y"], [node], model.opset_import))
    return model


HOSTILE: dict[str, tuple[Callable[[], onnx.ModelProto], str]] = {
    "control flow": (_loop, r"found the operator ai\.onnx\.If; do not trust it"),
    "another domain": (
        lambda: _graph(helper.make_node("Exec", ["x"], ["y"], domain="evil")),
        r"found the operator evil\.Exec",
    ),
    "a known name of another domain": (
        lambda: _graph(helper.make_node("Add", ["x", "x"], ["y"], domain="evil")),
        r"found the operator evil\.Add",
    ),
    "weights elsewhere": (_outside, "found the tensor 'secret' in another file"),
    "a constant elsewhere": (_outside_constant, "found the tensor 'secret' in another file"),
    "a sparse constant": (_sparse_constant, "found an attribute of Constant that is more than a tensor"),
    "a function": (_function, "found functions or sparse tensors"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_no_encoder_has_is_refused(tmp_path: Path, name: str) -> None:
    make, message = HOSTILE[name]
    onnx.save(make(), tmp_path / "encoder.onnx")
    with pytest.raises(
        ArtifactError, match=r"encoder\.onnx: expected an ONNX user encoder of plain operators, " + message
    ):
        open_session(tmp_path / "encoder.onnx", "user")


class Wide(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.arange(2000, dtype=torch.float32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, None] + self.weight


def test_large_graphs_have_a_file_of_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As PyTorch writes them, from 1.5 GiB on; a link in its place is refused."""
    monkeypatch.setattr("torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD", 100)
    path = tmp_path / "encoder.onnx"
    _export(Wide(), {"x": torch.zeros(2)}, ["y"], path)
    assert sorted(os.listdir(tmp_path)) == ["encoder.onnx", "encoder.onnx.data"]
    (found,) = open_session(path, "user").run(["y"], {"x": np.array([1, 2, 3], np.float32)})
    assert found[2].tolist() == list(range(3, 2003))
    (tmp_path / "encoder.onnx.data").rename(tmp_path / "elsewhere")
    (tmp_path / "encoder.onnx.data").symlink_to("elsewhere")
    with pytest.raises(ArtifactError, match=r"found the tensor '\w*' in another file; do not trust it"):
        open_session(path, "user")


def test_plain_operators_run(tmp_path: Path) -> None:
    onnx.save(_graph(helper.make_node("Add", ["x", "x"], ["y"])), tmp_path / "encoder.onnx")
    (found,) = open_session(tmp_path / "encoder.onnx", "user").run(["y"], {"x": np.array([1, 2], np.float32)})
    assert found.tolist() == [2, 4]
