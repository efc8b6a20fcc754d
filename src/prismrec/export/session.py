"""ONNX Runtime sessions on the CPU, as both exported encoders use them.

Takes a graph file; gives a session. Nothing here imports torch.
"""

from pathlib import Path
from typing import Any

import onnxruntime

from prismrec.errors import ArtifactError


def open_session(path: Path, name: str, threads: int | None = None) -> Any:
    """Load the graph of the `name` encoder.

    Args:
        path: the file.
        name: of the encoder, for messages.
        threads: for one run; all cores by default.

    Raises:
        ArtifactError: the file is not an ONNX graph that this ONNX Runtime can run.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # its warnings about what it does not fold are of no use to anyone
    options.intra_op_num_threads = threads or 0
    # threads that spin while they wait take the cores from the search
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions share no base
        raise ArtifactError(f"{path}: expected an ONNX {name} encoder ({error}); export the bundle again") from error
