"""ONNX Runtime sessions on the CPU, as both exported encoders use them.

Takes a graph file; gives a session, after a look at what the graph would do: plain tensor operations on what is in the
file itself, or beside it where it has over 1.5 GB of weights, and nothing else. Nothing here imports torch.
"""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from prismrec.errors import ArtifactError

_MATHS = """
Abs Add And ArgMax Cast Ceil Clip Concat Constant ConstantOfShape CumSum Div DynamicQuantizeLinear Einsum Equal Erf Exp
Expand Flatten Floor Gather GatherElements GatherND Gelu Gemm Greater GreaterOrEqual Identity IsNaN LayerNormalization
Less LessOrEqual Log MatMul MatMulInteger Max Mean Min Mod Mul Neg Not Or Pow Range Reciprocal ReduceL2 ReduceMax
ReduceMean ReduceMin ReduceSum Relu Reshape Round ScatterElements Shape Sigmoid Sign Slice Softmax Softplus Split Sqrt
Squeeze Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Where
"""
OPERATORS = frozenset(_MATHS.split())
"""What an encoder may consist of, all of ONNX's own domain: no control flow, so that a run ends."""
_PLAIN = frozenset({"FLOAT", "INT", "STRING", "TENSOR", "FLOATS", "INTS", "STRINGS"})


def open_session(path: Path, name: str, threads: int | None = None) -> Any:
    """Check and load the graph of the `name` encoder.

    Args:
        path: the file.
        name: of the encoder, for messages.
        threads: for one run; all cores by default.

    Raises:
        ArtifactError: the file is not an ONNX graph that this ONNX Runtime can run, has other operators than an
            encoder needs, or refers to other files than its own weights beside it, which large graphs have.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about what it does not fold are of no use to anyone
    options.intra_op_num_threads = threads or 0
    # threads that spin while they wait take the cores from the search
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        found = _not_allowed(onnx.load(path, load_external_data=False), path.with_name(f"{path.name}.data"))
        if not found:
            return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the exceptions of ONNX and its runtime share no base
        raise ArtifactError(f"{path}: expected an ONNX {name} encoder ({error}); export the bundle again") from error
    raise ArtifactError(f"{path}: expected an ONNX {name} encoder of plain operators, found {found}; do not trust it")


def _not_allowed(model: Any, weights: Path) -> str:
    """The first thing in a graph that no encoder has; empty if there is none.

    `weights` is the one other file that its tensors may be in.
    """
    if model.functions or model.graph.sparse_initializer:
        return "functions or sparse tensors"
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        if node.domain or node.op_type not in OPERATORS:
            return f"the operator {node.domain or 'ai.onnx'}.{node.op_type}"
        for attribute in node.attribute:
            if onnx.AttributeProto.AttributeType.Name(attribute.type) not in _PLAIN:
                return f"an attribute of {node.op_type} that is more than a tensor"
            tensors.append(attribute.t)
    for tensor in tensors:
        places = [entry.value for entry in tensor.external_data if entry.key == "location"]
        if tensor.data_location and (places != [weights.name] or weights.is_symlink()):
            return f"the tensor {tensor.name!r} in another file"
    return ""
