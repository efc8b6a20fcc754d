"""`prismrec train --nproc N`: the same command in N processes on this machine, started and watched by torchrun.

When one of them ends before its time, torchrun ends the others, so that none waits for ever.
"""

import logging
import os
import signal
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from prismrec.errors import RankError, TrainingError
from prismrec.train.distributed import check_torchrec

REPORTED = 1
"""Status of a process that has said what is wrong."""


def run_in_processes(arguments: Sequence[str], processes: int, restarts: int) -> int:
    """Run `prismrec` with these arguments in several processes that train together.

    Args:
        arguments: of the command line.
        processes: how many.
        restarts: how often all of them are started again, after one was lost; they go on from the last checkpoint.

    Returns:
        The status, 0 if all went well. If it is not 0, one of the processes has said why.

    Raises:
        ConfigError: TorchRec is not installed.
        TrainingError: a process was killed or has crashed.
    """
    check_torchrec()
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // processes, 1)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "prismrec", *arguments)
    except ChildFailedError as error:
        return _status_of(list(error.failures.items()))
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


def _status_of(failures: list[tuple[int, ProcessFailure]]) -> int:
    # torchrun itself ends by SIGTERM those that are left
    causes = [each for each in failures if each[1].exitcode not in (RankError.STATUS, -signal.SIGTERM)]
    if any(failure.exitcode == REPORTED for _, failure in causes):
        return REPORTED
    rank, failure = (causes or failures)[0]
    how = f"killed by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with status {failure.exitcode}"
    if failure.exitcode == RankError.STATUS:
        how = "cut off from the others"
    raise TrainingError(
        f"rank {rank} (process {failure.pid}) was {how}, so that training stopped; the same command with --resume goes "
        "on from the last checkpoint"
    )
