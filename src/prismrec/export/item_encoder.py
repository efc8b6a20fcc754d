"""The exported item encoder: ONNX Runtime in place of PyTorch.

Takes raw feature ids of items; gives their vectors. Nothing here imports torch.
"""

from pathlib import Path

import numpy as np

from prismrec.export.session import open_session

FEATURES, VECTORS = "features", "vectors"
_ITEMS_PER_BATCH = 65_536


class OnnxItemEncoder:
    """Runs `item_encoder.onnx` on the CPU."""

    def __init__(self, path: Path) -> None:
        """Load the graph.

        Raises:
            ArtifactError: the file is not an ONNX graph that this ONNX Runtime can run.
        """
        self._session = open_session(path, "item")

    def encode(self, features: np.ndarray) -> np.ndarray:
        """Raw feature ids, int64 [I, F] -> vectors, float32 [I, D], without the dimension of popularity."""
        starts = range(0, max(len(features), 1), _ITEMS_PER_BATCH)  # one batch of no items gives their width
        return np.concatenate([self._encode(features[start : start + _ITEMS_PER_BATCH]) for start in starts])

    def _encode(self, features: np.ndarray) -> np.ndarray:
        return self._session.run([VECTORS], {FEATURES: np.ascontiguousarray(features)})[0]
