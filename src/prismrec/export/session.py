"""ONNX Runtime sessions on the CPU, as both exported encoders use them.

Takes a graph file; gives a session. Nothing here imports torch.
"""

from pathlib import Path
from typing import Any

import onnxruntime

from prismrec.errors import ArtifactError


def open_session(path: Path, name: str) -> Any:
    """Load the graph of the `name` encoder.

    Raises:
        ArtifactError: the file is not an ONNX graph that this ONNX Runtime can run.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about what it does not fold are of no use to anyone
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base
        raise ArtifactError(f"{path}: expected an ONNX {name} encoder ({error}); export the bundle again") from error
