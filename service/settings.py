"""Every setting once: name, default, and what it trades.  The only reader of the environment.

Each field is ``ALBERT_SERVE_<FIELD>`` in the environment and ``--<field>`` of ``albert-serve serve``; the flag beats
the environment, which beats the default.
"""

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "ALBERT_SERVE_"
# What Kubernetes sets in each container for a Service that is called albert-serve.
KUBERNETES = re.compile(r"^ALBERT_SERVE_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP|SCTP))")

Key = Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$")]


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, frozen=True, extra="forbid", protected_namespaces=()
    )

    model_repo: Path = Field(Path("model_repo"), description="Folder of the model repository.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 lets other machines in.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    unix_socket: Path | None = Field(
        None, description="Listen on this Unix socket in place of host and port, such as for a proxy on this machine."
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file of the certificate and its chain: the service then speaks TLS, over gRPC too. Read "
        "again when it changes (not for gRPC).",
    )  # fmt: skip
    tls_key: Path | None = Field(None, description="PEM file of the certificate's private key.")
    device: str = Field(
        "auto", description="auto, cpu, cuda or cuda:N. auto takes CUDA where it works and logs why; a named device "
        "that does not work is an error.",
    )  # fmt: skip
    workers: int = Field(
        1, ge=1, le=256, description="Server processes. More of them parse and tokenize more requests at once; see "
        "share_models for whose the models are.",
    )  # fmt: skip
    share_models: Literal["auto", "yes", "no"] = Field(
        "auto", description="Where there are several workers: yes has one more process hold the models and the device "
        "for all of them, no has each hold its own. auto: yes where there is a CUDA card that may be used.",
    )  # fmt: skip
    threads: int = Field(
        0, ge=0, description="CPU threads for inference in each process that holds models; 0 shares out the cores that "
        "may be used, by affinity and by the cgroup's quota, and follows them when they change.",
    )  # fmt: skip
    spin: bool = Field(
        False, description="Let those threads wait for work without sleeping: a sentence is up to a seventh faster on "
        "cores that nobody else uses, everything half as fast or less on others.",
    )  # fmt: skip
    precision: Literal["auto", "int8", "float32"] = Field(
        "auto", description="What models with graphs in eight bits run in. auto takes float32 where the processor has "
        "no VNNI and float32 is as fast; int8 gives the same answers on all processors.",
    )  # fmt: skip
    cpu_features: str = Field(
        "auto", description="Features of the processor: auto looks; none, or some of vnni,bfloat16, are taken for true "
        "instead, to run as another machine of a mixed fleet does.",
    )  # fmt: skip
    cuda_memory_mb: int = Field(
        0, ge=0, description="Limit in MiB of what a process' models hold on a CUDA card, together; 0 sets none."
    )
    classify_model: str = Field(
        "sentiment", description="The model of a /classify request that names none. Unless it is set, and where there "
        "is none of this name, the only classifier is it.",
    )  # fmt: skip
    qa_model: str = Field("qa", description="The same of a /qa request, among models that answer questions.")
    tokens_model: str = Field("tokens", description="The same of a /tokens request, among taggers.")
    fill_mask_model: str = Field("fill-mask", description="The same of a /fill-mask request.")
    embed_model: str = Field("embed", description="The same of an /embed or /summarize request.")
    choose_model: str = Field("choose", description="The same of a /choose request.")
    required_models: Annotated[list[str] | None, NoDecode] = Field(
        None, description="Models without which the service is not ready, with commas; unless set the defaults above, "
        "as far as the repository has models of their tasks.",
    )  # fmt: skip
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
        0.05, gt=0, description="How soon waiting beats being short: later texts overtake a text for at most the run "
        "time of its size class divided by this.",
    )  # fmt: skip
    bulk_delay_seconds: float = Field(
        5.0, ge=0, description="How long bulk work lets interactive work that came later go first."
    )
    cache_mb: int = Field(
        0, ge=0, description="Memory of each worker for answers that may be asked for again, by their tokens; 0 keeps "
        "none. What stands twice in one request runs once in any case.",
    )  # fmt: skip
    cache_seconds: float = Field(60, gt=0, description="For how long an answer is kept there.")
    max_queue_tokens: int = Field(
        262_144, ge=1, description="Tokens that may wait for the device. A low limit refuses requests (429) instead of "
        "having them wait too long.",
    )  # fmt: skip
    max_requests: int = Field(
        1024, ge=1, description="Requests in work in each worker; above it 429. Health and metrics are always answered."
    )
    deadline_ms: int = Field(
        30_000, ge=1, description="Deadline of a request that sends no X-Deadline-Ms, from its first byte."
    )
    bulk_deadline_ms: int = Field(
        120_000, ge=1, description="The same of a request with the priority bulk, which waits for the others."
    )
    step_timeout_seconds: float = Field(
        10.0, gt=0, description="A step of the device that takes longer, and fifty times what it should, counts as one "
        "that hangs: the device is restarted then.",
    )  # fmt: skip
    max_body_bytes: int = Field(8 * 2**20, ge=1, description="Largest request body; above it 413.")
    max_text_chars: int = Field(
        400_000, ge=1, description="Longest single text in code points; above it 413, before any tokenizing."
    )
    max_inputs: int = Field(1024, ge=1, description="Most texts, choices or sentences in one request.")
    read_windows: int = Field(
        100,
        ge=1,
        description="Windows that a /qa request reads at most where it does not say (read): those that have "
        "most in common with the question.",
    )
    max_documents: int = Field(512, ge=1, description="Most documents in one /qa request.")
    document_seconds: float = Field(
        20.0, gt=0, description="How long reading one PDF file or picture of /qa may take; above it 413."
    )
    document_pages: int = Field(200, ge=1, description="Most pages of one file; above it 413.")
    document_memory_mb: int = Field(
        4096, ge=512, description="Address space in MiB of the process that reads files; what needs more gets 413."
    )
    max_body_memory: int = Field(
        128 * 2**20, ge=1, description="Bytes of bodies that are being read, in each worker; above it 503."
    )
    max_connections: int = Field(
        1000, ge=1, description="Open connections in each worker, at most what the descriptors allow. Above it the one "
        "that was idle longest is closed, or the new one gets 503.",
    )  # fmt: skip
    max_header_bytes: int = Field(32_768, ge=1024, description="Largest head of a request; above it 431.")
    max_headers: int = Field(100, ge=1, description="Most headers of a request; above it 431.")
    header_seconds: float = Field(10.0, gt=0, description="How long a request's head may take to come.")
    body_seconds: float = Field(30.0, gt=0, description="How long a request's body may take to come; above it 408.")
    keep_alive_seconds: float = Field(15.0, gt=0, description="How long a connection may be idle between requests.")
    shutdown_delay_seconds: float = Field(
        0.0, ge=0, description="On SIGTERM, how long the service says that it is not ready and still answers, so that "
        "load balancers see it; behind Kubernetes 5 is usual.",
    )  # fmt: skip
    drain_seconds: int = Field(
        30, ge=0, description="After that, how long requests in work may take to end; the rest gets 503."
    )
    api_keys: Annotated[list[Key], NoDecode] = Field(
        [],
        description="If any, requests need 'Authorization: Bearer KEY'. Keys without spaces, or sha256: and the "
        "digest of one in hexadecimal, with commas between.",
    )
    api_key_file: Path | None = Field(
        None, description="TOML file of keys as digests, each with a name and perhaps a rate, a share of the device "
        "and admin (`albert-serve key` writes an entry); read again when it changes.",
    )  # fmt: skip
    admin_keys: Annotated[list[Key], NoDecode] = Field(
        [], description="The same as api_keys for keys that may also load and unload models."
    )
    grpc_port: int | None = Field(
        None, ge=1, le=65535, description="Port for the Open Inference Protocol over gRPC; unset, none. Takes the "
        "extra grpc.",
    )  # fmt: skip
    admin_port: int | None = Field(
        None, ge=1, le=65535, description="A port of its own for /metrics and for loading and unloading models, which "
        "the other port then does not have. Without an admin key that port may do it without.",
    )  # fmt: skip
    cors_origins: Annotated[list[str], NoDecode] = Field(
        [], description="Origins whose pages may ask from a browser, such as https://example.org, with commas; * is "
        "all. None by default.",
    )  # fmt: skip
    root_path: str = Field(
        "", pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="The path before all routes where a proxy serves this under "
        "one, such as /albert; whether the proxy takes it off or not.",
    )  # fmt: skip
    tracing: bool = Field(
        False, description="Send OpenTelemetry traces by OTLP over HTTP, to OTEL_EXPORTER_OTLP_ENDPOINT; the other "
        "OTEL_ variables work, too. Takes the extra tracing.",
    )  # fmt: skip
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="json for collectors, text for people; auto is text on a terminal, json elsewhere."
    )
    access_log: bool = Field(False, description="A line for each request: method, path, status and milliseconds.")

    def contradiction(self) -> str:
        """What does not go together; empty where all does."""
        if (self.tls_certificate is None) != (self.tls_key is None):
            return "tls_certificate and tls_key: give both or neither"
        if self.unix_socket is not None and self.tls_certificate is not None:
            return "unix_socket: it speaks no TLS; leave tls_certificate out"
        ports = [port for port in (self.port, self.admin_port, self.grpc_port) if port]
        if len(set(ports)) < len(ports):
            return "port, admin_port, grpc_port: two of them are one"
        return ""

    @field_validator("device")
    @classmethod
    def _known(cls, given: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", given):
            raise PydanticCustomError("device", "wanted auto, cpu, cuda or cuda:N")
        return given

    @field_validator("required_models", "api_keys", "admin_keys", "cors_origins", mode="before")
    @classmethod
    def _listed(cls, given: object) -> object:
        """From a flag or a variable: with commas between, or as a JSON list."""
        if not isinstance(given, str):
            return given
        if given.lstrip().startswith("["):
            return json.loads(given)
        return [part.strip() for part in given.split(",")]  # an empty key is refused, and not left out


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str | None]:
    """Variables that look like settings and are none, each with the name that was probably meant."""
    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    wrong = sorted(
        name for name in environment
        if name.upper().startswith(PREFIX) and name.upper() not in known and not KUBERNETES.search(name.upper())
    )  # fmt: skip
    fields = [name.upper() for name in Settings.model_fields]
    near = {name: difflib.get_close_matches(name.upper().removeprefix(PREFIX), fields, 1) for name in wrong}
    return {name: f"{PREFIX}{found[0]}" if found else None for name, found in near.items()}
