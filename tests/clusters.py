"""A Ray cluster of several nodes on this machine, as Ray's own tests start one."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

STORE = 80 * 2**20  # bytes of the object store of each


@contextlib.contextmanager
def running(nodes: int, **variables: str) -> Iterator[Any]:
    """``ray.cluster_utils.Cluster`` with a head and ``nodes - 1`` more, of one CPU each; ``variables`` for them."""
    pytest.importorskip("ray")
    variables |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what Ray says while it starts is its own
        for name, value in variables.items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        node: Any = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        try:
            for _ in range(nodes - 1):
                cluster.add_node(**node)
            yield cluster
        finally:
            cluster.shutdown()


def environment(root: Path, **variables: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0"} | variables
