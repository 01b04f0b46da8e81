"""Rows answered over a Ray cluster, by Ray Data: read on this machine, answered by actors, gathered here in order.

Nodes need this package and nothing else: the model's files travel through Ray's object store, and so do the rows.  An
actor or a node that dies is replaced and its rows are answered again; the numbers of the rows show that each came once.

Source: Ray Data's streaming execution, https://docs.ray.io/en/latest/data/data-internals.html.
"""

import json
import logging
import math
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..errors import DataError, DeviceError, ServiceError, UsageError
from ..repository.store import read_files, read_manifest
from ..runtime.providers import choose
from ..serving.loading import LoadOptions, load
from .answering import Columns, answer_rows
from .rows import CHUNK, Row, read_chunks

CONNECT_SECONDS = 5
BLOCK = 2**19  # bytes of rows that travel together
Batch = dict[str, Any]
Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Share:
    """What an actor takes of its node.  ``gpus`` may be a part of one; ``workers``: at most so many, 0 as many as fit
    the cluster as it is."""

    cpus: int = 1
    gpus: float = 0.0
    workers: int = 0

    def most(self, cluster: Mapping[str, float]) -> int:
        """Actors of this share that fit ``cluster``.  UsageError where none does."""
        rooms = [cluster.get("CPU", 0.0) / self.cpus] + ([cluster.get("GPU", 0.0) / self.gpus] if self.gpus else [])
        fit = math.floor(min(rooms))
        if not (fit or self.workers):
            raise UsageError(f"the cluster has {dict(cluster)}: no worker of {self.cpus} CPUs, {self.gpus:g} GPUs fits")
        return self.workers or fit


def model_files(folder: Path) -> dict[str, bytes]:
    """A version's files, checked, for ``Answering``."""
    files = read_files(folder, read_manifest(folder))
    return dict(files) | {"manifest.json": (folder / "manifest.json").read_bytes()}


class Answering:
    """For ``Dataset.map_batches``: a batch of columns, with the columns of the answers added.

    ``files``: those of ``model_files``, or Ray's reference to them.
    """

    def __init__(
        self, files: Files | ray.ObjectRef, columns: Columns | None = None, options: Mapping[str, Any] | None = None,
        device: str = "auto", threads: int = 1,
    ) -> None:  # fmt: skip
        self.columns, self.options = columns or Columns(), dict(options or {})
        held: Files = ray.get(files) if isinstance(files, ray.ObjectRef) else files
        manifest = json.loads(held["manifest.json"])
        self.root = tempfile.TemporaryDirectory(prefix="albert-serve-")
        folder = Path(self.root.name) / manifest["name"] / str(manifest["version"])
        folder.mkdir(parents=True)
        for name, content in held.items():
            (folder / name).write_bytes(content)
        self.engine = load(folder, LoadOptions(choose(device, threads=threads)))

    def __call__(self, batch: Batch) -> Batch:
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*map(_plain, batch.values()), strict=True)]
        return _columns(self.answer(rows))

    def answer(self, rows: list[Row]) -> list[Row]:
        return answer_rows(self.engine, rows, self.columns, self.options)


class _AnsweringLines(Answering):
    """Rows as lines of JSON, so that Arrow changes no value that it has no type for."""

    def __call__(self, batch: Batch) -> Batch:
        answered = self.answer([json.loads(line) for line in batch["row"]])
        return {"number": batch["number"], "row": [json.dumps(row) for row in answered]}


@dataclass(frozen=True, slots=True)
class Cluster:
    """``address`` as ``ray.init`` takes it.  ``folder`` of the model's version."""

    address: str
    folder: Path
    columns: Columns
    options: dict[str, Any]
    device: str = "auto"
    share: Share = Share()

    def answers(self, source: Path, done: int) -> Iterator[list[Row]]:
        """The rows after the first ``done`` with their answers, in order, as they come.

        UsageError where there is no such cluster, DataError of the file, DeviceError where it cannot be gone on.
        """
        connect(self.address)
        try:
            for batch in self._dataset(source, done).iter_batches(batch_size=None, batch_format="numpy"):
                expected = list(range(done, done + len(batch["number"])))
                if list(batch["number"]) != expected:
                    raise DeviceError(f"the cluster gave other rows than {done} and on: run the command again")
                done += len(expected)
                yield [json.loads(line) for line in batch["row"]]
        except RayError as error:
            raise _said(error) from error
        finally:
            ray.shutdown()

    def _dataset(self, source: Path, done: int) -> Dataset:
        context = DataContext.get_current()
        context.target_max_block_size = BLOCK
        context.execution_options.preserve_order = True
        context.enable_progress_bars = context.print_on_execution_start = False
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        files = ray.put(model_files(self.folder))
        share = self.share
        return (
            ray.data.from_items([{"done": done}], override_num_blocks=1)
            .map_batches(_read, fn_args=(str(source.resolve()),), num_cpus=0, scheduling_strategy=here)
            .map_batches(
                _AnsweringLines, fn_constructor_args=(files, self.columns, self.options, self.device, share.cpus),
                compute=ActorPoolStrategy(min_size=1, max_size=share.most(ray.cluster_resources())),
                num_cpus=share.cpus, num_gpus=share.gpus or None, batch_size=CHUNK,
            )
        )  # fmt: skip


def connect(address: str) -> None:
    """UsageError where no cluster answers."""
    if address.startswith("ray://"):
        raise UsageError(f"{address}: the file is read where the command runs; run it on a node (ray job submit)")
    try:
        if ":" in address:  # Ray itself asks an address that does not answer for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise UsageError(f"no Ray cluster at {address!r} ({str(error).splitlines()[0]}): ray start --head") from error
    logging.getLogger("ray.data").setLevel(logging.WARNING)


def _read(batch: Batch, source: str) -> Iterator[Batch]:
    """One task on the machine that has the file; what it reads is handed on while it reads."""
    (done,) = map(int, batch["done"])
    for chunk in read_chunks(Path(source), done):
        yield {"number": list(range(done, done + len(chunk))), "row": [json.dumps(row) for row in chunk]}
        done += len(chunk)


def _plain(values: Any) -> Any:
    return values.tolist() if hasattr(values, "tolist") else values


def _columns(rows: list[Row]) -> Batch:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _said(error: RayError) -> ServiceError:
    cause: Any = getattr(error, "cause", None)
    while isinstance(getattr(cause, "cause", None), Exception):
        cause = cause.cause
    if isinstance(cause, ServiceError):
        return cause if isinstance(cause, DataError) else DeviceError(cause.message)
    return DeviceError(f"Ray: {str(error).strip().splitlines()[-1][:300]}")
