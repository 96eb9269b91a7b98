"""Flower's secure aggregation: a client's mask of one neighbour. Imported by serve.py only.

Its generator folds the 32 bytes of the seed to 32 bits and feeds a Mersenne Twister: not secure, but what is run.
"""

from collections.abc import Callable, Mapping
from importlib import metadata

import numpy as np
from flwr.common.secure_aggregation.ndarrays_arithmetic import parameters_addition, parameters_mod
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen


def load() -> tuple[str, Mapping[str, Callable[[], int]]]:
    """Label, and jobs that say how many units they did: bytes of uint32, as the rows of masks count."""
    count = 1_000_000
    values = [np.ones(count, np.int64)]
    seed = bytes(range(32))

    def mask() -> int:
        stream = pseudo_rand_gen(seed, 1 << 32, [(count,)])
        parameters_mod(parameters_addition(values, stream), 1 << 32)
        return 4 * count

    return f"flwr {metadata.version('flwr')}", {"mask": mask}
