"""What a manifest may say, and which fields an error names."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from service.repository.manifest import Manifest

SUM = "0" * 64
EXITS = {"kind": "window", "threshold": 0.9, "first": 2, "window": 2, "mean_depth": 2.5, "lost": 0.1, "data": "dev.tsv"}
GRAPHS = {"precision": "float32", "embed": "embed.onnx", "layers": "layers.onnx", "head": "head.onnx"}


def facts(**changes: Any) -> dict[str, Any]:
    """A whole manifest of a classifier, as it is read from JSON."""
    whole: dict[str, Any] = {
        "name": "sentiment", "version": 3, "task": "text-classification", "labels": ["bad", "good"],
        "problem_type": "single_label_classification", "max_length": 512, "window": 128, "overlap": 32, "layers": 12,
        "architecture": {"hidden_size": 768}, "graphs": {"cpu": GRAPHS},
        "sha256": dict.fromkeys(["embed.onnx", "layers.onnx", "head.onnx", "tokenizer.json"], SUM),
    }  # fmt: skip
    return whole | changes


def fields_refused(**changes: Any) -> set[str]:
    with pytest.raises(ValidationError) as refused:
        Manifest.model_validate_json(json.dumps(facts(**changes)))
    return {".".join(str(part) for part in error["loc"]) for error in refused.value.errors()}


def reason_of(**changes: Any) -> str:
    with pytest.raises(ValidationError) as refused:
        Manifest.model_validate_json(json.dumps(facts(**changes)))
    return str(refused.value)


def test_what_is_written_is_read_again() -> None:
    manifest = Manifest.model_validate_json(json.dumps(facts(parity={"worst": 1e-6}, no_answer_shift=-1.5)))

    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert (manifest.name, manifest.version, manifest.temperature) == ("sentiment", 3, 1.0)
    assert manifest.graphs["cpu"].layers == "layers.onnx"


def test_the_lead_that_older_versions_hold_is_the_same_decision_as_a_shift() -> None:
    manifest = Manifest.model_validate_json(json.dumps(facts(no_answer_threshold=-5.25)))

    assert (manifest.no_answer_scale, manifest.no_answer_shift) == (1.0, 5.25)
    assert "no_answer_threshold" not in manifest.model_dump()
    assert "no_answer_threshold" in reason_of(no_answer_threshold="high")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "red"}, "colour"),
        ({"graphs": {"cpu": GRAPHS | {"tail": "x.onnx"}}}, "graphs.cpu.tail"),
        ({"tokenizer": {"file": "tokenizer.json", "bos": "x"}}, "tokenizer.bos"),
    ],
)
def test_an_unknown_field_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    assert fields_refused(**changes) == {field}


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "/etc/passwd", "a/b", "a\\b", "", ".hidden", "-x", "x y", "x\n", "C:x", "ä"]
)
def test_a_file_outside_the_versions_folder_is_refused(name: str) -> None:
    for part in ("embed", "layers", "head"):
        assert fields_refused(graphs={"cpu": GRAPHS | {part: name}}) == {f"graphs.cpu.{part}"}
    assert fields_refused(tokenizer={"file": name}) == {"tokenizer.file"}
    assert any(field.startswith("sha256.") for field in fields_refused(sha256=facts()["sha256"] | {name: SUM}))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"format": 2}, "format"),
        ({"version": 0}, "version"),
        ({"version": "latest"}, "version"),
        ({"task": "translation"}, "task"),
        ({"problem_type": "ranking"}, "problem_type"),
        ({"max_length": 4}, "max_length"),
        ({"layers": 0}, "layers"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"exits": EXITS | {"kind": "luck"}}, "exits.kind"),
        ({"exits": EXITS | {"threshold": 1.5}}, "exits.threshold"),
        ({"exits": EXITS | {"first": 0}}, "exits.first"),
        ({"graphs": {"cpu": GRAPHS | {"precision": "int4"}}}, "graphs.cpu.precision"),
    ],
)
def test_a_wrong_value_is_refused_by_its_field(changes: dict[str, Any], field: str) -> None:
    assert fields_refused(**changes) == {field}


@pytest.mark.parametrize(
    "layers", [{"layers": None}, {"layers": None, "tensors": "t.onnx"}, {"layers": None, "unrolled": {1: "1.onnx"}},
               {"layers": None, "tensors": "t.onnx", "unrolled": {2: "2.onnx"}}],
)  # fmt: skip
def test_graphs_have_their_layers_in_one_form_or_the_other(layers: dict[str, Any]) -> None:
    assert fields_refused(graphs={"cpu": GRAPHS | layers}) == {"graphs.cpu"}
    unrolled = {"layers": None, "tensors": "t.onnx", "unrolled": {"1": "1.onnx", "2": "2.onnx"}}
    sums = facts()["sha256"] | dict.fromkeys(("t.onnx", "1.onnx", "2.onnx"), SUM)
    manifest = Manifest.model_validate(facts(graphs={"cpu": GRAPHS | unrolled}, sha256=sums))
    assert manifest.graphs["cpu"].unrolled == {1: "1.onnx", 2: "2.onnx"}
    assert {"t.onnx", "1.onnx", "2.onnx"} <= manifest.named_files()


@pytest.mark.parametrize("checksum", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n"])
def test_a_checksum_is_64_small_hexadecimal_digits(checksum: str) -> None:
    assert fields_refused(sha256=facts()["sha256"] | {"head.onnx": checksum}) == {"sha256.head.onnx"}


@pytest.mark.parametrize("file", ["embed.onnx", "layers.onnx", "head.onnx", "tokenizer.json"])
def test_a_file_without_a_checksum_is_refused_by_name(file: str) -> None:
    sums = {name: checksum for name, checksum in facts()["sha256"].items() if name != file}

    assert f"no checksum for {file}" in reason_of(sha256=sums)


@pytest.mark.parametrize("changes", [{"labels": []}, {"problem_type": None}])
def test_a_classifier_needs_labels_and_a_problem_type(changes: dict[str, Any]) -> None:
    assert "a classifier needs labels" in reason_of(**changes)
    assert Manifest.model_validate(facts(task="question-answering", **changes)).task == "question-answering"


@pytest.mark.parametrize("changes", [{"window": 513}, {"overlap": 128}, {"overlap": 200}])
def test_windows_fit_the_model_and_move_on(changes: dict[str, Any]) -> None:
    assert "overlap < window <= max_length" in reason_of(**changes)


@pytest.mark.parametrize("field", ["name", "version", "task", "max_length", "window", "layers", "graphs", "sha256"])
def test_a_field_that_is_missing_is_named(field: str) -> None:
    whole = facts()
    del whole[field]
    with pytest.raises(ValidationError) as refused:
        Manifest.model_validate_json(json.dumps(whole))

    assert [error["loc"] for error in refused.value.errors()] == [(field,)]


def test_a_manifest_is_never_changed() -> None:
    manifest = Manifest.model_validate(facts())

    with pytest.raises(ValidationError, match="frozen"):
        manifest.version = 4  # type: ignore[misc]
