"""``bench``: how a running service bears a load."""

import argparse
import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, UsageError
from .numbers import count, from_zero, not_negative

FIRST_DEADLINE = 5.0  # seconds to find out whether anyone is there
if TYPE_CHECKING:
    from ..bench.traffic import Kind


def add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="of the running service, such as http://localhost:8000")
    sources = "[:K/N][@SHARE]; several are mixed by their shares"
    parser.add_argument("--classify", action="append", default=[], metavar="FILE", help=f"texts, FILE{sources}")
    parser.add_argument("--qa", action="append", default=[], metavar="FILE", help=f"questions, FILE{sources}")
    load = parser.add_mutually_exclusive_group(required=True)
    load.add_argument("--rate", type=_positive, nargs="+", help="open loop: requests a second that come by chance")
    load.add_argument("--clients", type=count, nargs="+", help="closed loop: clients that ask one after the other")
    parser.add_argument("--seconds", type=_positive, default=20.0, help="of each load, warm-up included [20]")
    parser.add_argument(
        "--warmup", type=not_negative, default=3.0, help="seconds at the beginning that do not count [3]"
    )
    parser.add_argument("--classify-model", help="the service's default where absent")
    parser.add_argument("--qa-model", help="the service's default where absent")
    parser.add_argument("--full-depth", action="store_true", help="ask for all layers: no early exit")
    parser.add_argument("--api-key", help="of the service, where it wants one")
    parser.add_argument("--seed", type=from_zero, default=13, help="of what is asked when [13]")
    parser.add_argument("--out", type=Path, help="folder for bench.json and a picture of latency against load")
    parser.set_defaults(run=_bench)


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("wanted more than zero")
    return value


def _bench(options: argparse.Namespace) -> int:
    from ..bench.report import draw, table

    if options.warmup >= options.seconds:
        raise UsageError(f"--warmup {options.warmup:g} leaves nothing of --seconds {options.seconds:g} to measure")
    kinds = _kinds(options)
    _check_service(options)
    reports = asyncio.run(_loads(options, kinds))
    print(table(reports))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "bench.json").write_text(json.dumps(reports, indent=1))
        draw(reports, options.out / "bench.png")
    return 0 if all(report["answers_per_second"] for report in reports) else 1


def _check_service(options: argparse.Namespace) -> None:
    """DataError where nobody answers at the address, or what is asked for is not there: before the load, not after."""
    from albert_client import Client, Refused, Unanswered

    try:
        with Client(options.url, api_key=options.api_key, deadline=FIRST_DEADLINE) as client:
            there = {model.name for model in client.models()}
    except Refused as error:
        raise DataError(f"{options.url}: {error}") from error
    except (Unanswered, ValueError) as error:
        raise DataError(str(error)) from error
    for name in filter(None, (options.classify_model, options.qa_model)):
        if name not in there:
            raise DataError(
                f"{options.url}: there is no model {name!r}; it serves {', '.join(sorted(there)) or 'none'}"
            )


def _kinds(options: argparse.Namespace) -> "list[Kind]":
    from ..bench.traffic import read_kind

    common = {"early_exit": False} if options.full_depth else {}
    kinds = []
    for route, files, model in (
        ("/classify", options.classify, options.classify_model),
        ("/qa", options.qa, options.qa_model),
    ):
        kinds += [read_kind(route, source, common | ({"model": model} if model else {})) for source in files]
    if not kinds:
        raise UsageError("give texts with --classify, questions with --qa, or both")
    return kinds


async def _loads(options: argparse.Namespace, kinds: "list[Kind]") -> list[dict[str, Any]]:
    from tqdm import tqdm

    from ..bench.drive import closed_loop, open_loop, sender
    from ..bench.report import summarise
    from ..bench.traffic import endless

    reports = []
    for amount in options.rate or options.clients:
        unit = "requests a second" if options.rate else "clients"
        asks = endless(kinds, options.seed)
        async with sender(options.url, options.api_key) as send:
            await send(next(asks))
            with tqdm(desc=f"{amount:g} {unit}", unit=" answers") as bar:
                if options.rate:
                    samples = await open_loop(send, asks, amount, options.seconds, options.seed, bar.update)
                else:
                    samples = await closed_loop(send, asks, amount, options.seconds, bar.update)
        load = {"load": f"{amount:g} {unit}", "amount": amount, "unit": unit}
        until = options.seconds if options.rate else None  # in a closed loop all that was asked counts
        reports.append(load | summarise(samples, options.warmup, until))
    return reports
