"""Every setting once: name, default, and what it trades.  The only reader of the environment.

Each field is ``ALBERT_SERVE_<FIELD>`` in the environment and ``--<field>`` of ``albert-serve serve``; the flag beats
the environment, which beats the default.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "ALBERT_SERVE_"


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", protected_namespaces=())

    model_repo: Path = Field(Path("model_repo"), description="Folder of the model repository.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    device: str = Field(
        "auto", description="auto, cpu, cuda or cuda:N. auto takes CUDA where it works and logs why; a named device "
        "that does not work is an error.",
    )  # fmt: skip
    workers: int = Field(
        1, ge=1, le=256, description="Server processes. More of them parse and tokenize more requests at once, and "
        "each holds its own copy of the models.",
    )  # fmt: skip
    threads: int = Field(0, ge=0, description="CPU threads for inference in each worker; 0 shares the cores out.")
    cuda_memory_mb: int = Field(0, ge=0, description="Limit of each worker's CUDA arena in MiB; 0 sets none.")
    classify_model: str = Field("sentiment", description="The model of a /classify request that names none.")
    qa_model: str = Field("qa", description="The model of a /qa request that names none.")
    versions: int = Field(1, ge=1, description="How many of each model's newest versions are loaded.")
    watch_seconds: float = Field(
        5.0, ge=0, description="How often the repository is looked at for new versions; 0 never looks again."
    )
    token_budget: int = Field(
        0, ge=0, description="Tokens in one step of the device; 0 measures it at warm-up. A larger step gives more "
        "throughput and makes short texts wait longer.",
    )  # fmt: skip
    layers_per_step: int = Field(
        0, ge=0, description="Layers that a full step runs before what came meanwhile may pass; 0 measures how few "
        "cost nothing. Fewer let short texts pass long ones sooner, each step has its price.",
    )  # fmt: skip
    early_exit: bool = Field(
        True, description="Let a text leave before the last layer where its model's manifest says when that is safe; "
        "false runs all layers for everyone.",
    )  # fmt: skip
    ageing: float = Field(
        0.02, gt=0, description="How soon waiting beats being short: later texts overtake a text for at most its own "
        "run time divided by this.",
    )  # fmt: skip
    bulk_delay_seconds: float = Field(
        30.0, ge=0, description="How long bulk work lets interactive work that came later go first."
    )
    max_queue_tokens: int = Field(
        262_144, ge=1, description="Tokens that may wait for the device. A low limit refuses requests (429) instead of "
        "having them wait too long.",
    )  # fmt: skip
    deadline_ms: int = Field(30_000, ge=1, description="Deadline of a request that sends no X-Deadline-Ms.")
    max_body_bytes: int = Field(8 * 2**20, ge=1, description="Largest request body; above it 413.")
    max_text_chars: int = Field(
        400_000, ge=1, description="Longest single text in code points; above it 413, before any tokenizing."
    )
    max_inputs: int = Field(1024, ge=1, description="Most texts in one /classify request.")
    max_documents: int = Field(512, ge=1, description="Most documents in one /qa request.")
    drain_seconds: int = Field(30, ge=0, description="On SIGTERM, how long running requests may take to end.")
    api_keys: list[str] = Field([], description="If any, requests need 'Authorization: Bearer KEY'. A JSON list.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["json", "text"] = Field("json", description="json for collectors, text for people.")
