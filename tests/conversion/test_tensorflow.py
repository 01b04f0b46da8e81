"""Checkpoints of TensorFlow: those that Google's scripts and transformers 4's TFAlbert wrote are read without it.

``write_bundle`` writes the format on its own, so that these tests run everywhere; where TensorFlow is installed, one
test has TensorFlow itself write the same variables.
"""

import contextlib
import json
import re
import struct
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from service.conversion.pipeline import Options, convert
from service.conversion.tensor_bundle import read_index
from service.conversion.tensorflow import is_tensorflow, read_config, read_tensors, vocabulary_file
from service.errors import CheckpointError
from service.repository.store import read_manifest
from tests.checkpoints import save_checkpoint, word_pieces

Array = np.ndarray[Any, np.dtype[Any]]
CODES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "uint16": 14, "float16": 19}  # uint16: bfloat16's bits
HEADS = [
    ("AlbertForSequenceClassification", {"num_labels": 3}),
    ("AlbertForQuestionAnswering", {}),
    ("AlbertForPreTraining", {}),
    ("AlbertForMaskedLM", {}),
]
SCOPES = {
    "albert.embeddings.": "bert/embeddings/",
    "albert.encoder.embedding_hidden_mapping_in.": "bert/encoder/embedding_hidden_mapping_in/",
    "albert.encoder.albert_layer_groups.": "bert/encoder/transformer/group_",
    ".albert_layers.": "/inner_group_",
    "albert.pooler.": "bert/pooler/dense/",
    ".attention.dense.": "/attention_1/output/dense/",
    ".attention.LayerNorm.": "/LayerNorm/",
    ".attention.": "/attention_1/self/",
    ".ffn.": "/ffn_1/intermediate/dense/",
    ".ffn_output.": "/ffn_1/intermediate/output/dense/",
    ".full_layer_layer_norm.": "/LayerNorm_1/",
    "predictions.dense.": "cls/predictions/transform/dense/",
    "predictions.LayerNorm.": "cls/predictions/transform/LayerNorm/",
    "predictions.bias": "cls/predictions/output_bias",
    "sop_classifier.classifier.": "cls/seq_relationship/output_",
    "qa_outputs.": "cls/squad/output_",
    "classifier.": "output_",
}


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def message(*fields: tuple[int, int | bytes]) -> bytes:
    """Of protobuf: numbers as varints, bytes with their length before them."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            out += varint(number << 3 | 2) + varint(len(value)) + value
    return out


def masked_crc32c(data: bytes) -> int:
    checksum = crc32c(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(data: bytes) -> int:
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum = checksum >> 8 ^ REMAINDERS[(checksum ^ byte) & 255]
    return checksum ^ 0xFFFFFFFF


def remainder(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


REMAINDERS = [remainder(byte) for byte in range(256)]


def block(pairs: Iterable[tuple[bytes, bytes]], compression: int = 0) -> bytes:
    """Every second key stands whole, the others share what they can with the one before."""
    out, restarts, before = b"", [], b""
    for number, (key, value) in enumerate(pairs):
        if number % 2 == 0:
            restarts.append(len(out))
            before = b""
        shared = next(
            (i for i, (a, b) in enumerate(zip(before, key, strict=False)) if a != b), min(map(len, (before, key)))
        )
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        before = key
    out += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    return out + bytes([compression]) + struct.pack("<I", masked_crc32c(out + bytes([compression])))


def write_bundle(
    prefix: Path, variables: dict[str, Array], shards: int = 1, *, compression: int = 0, endianness: int = 0,
    more: tuple[tuple[int, int | bytes], ...] = (),
) -> Path:  # fmt: skip
    """As BundleWriter of TensorFlow: keys sorted, small blocks, variable number i in shard i modulo ``shards``."""
    prefix.parent.mkdir(parents=True, exist_ok=True)
    data = [b"" for _ in range(shards)]
    pairs = [(b"", message((1, shards), (2, endianness), (3, message((1, 1)))))]
    for number, (name, value) in enumerate(sorted(variables.items())):
        shard, content = number % shards, value.tobytes()
        dims = message(*((2, message((1, size))) for size in value.shape))
        place = ((3, shard), (4, len(data[shard])), (5, len(content)))
        checksum = varint(6 << 3 | 5) + struct.pack("<I", masked_crc32c(content))  # a fixed32
        pairs.append(
            (name.encode(), message((1, CODES[str(value.dtype)]), (2, dims), *place) + checksum + message(*more))
        )
        data[shard] += content
    for shard, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{shard:05d}-of-{shards:05d}").write_bytes(content)
    table, handles = b"", []
    for begin in range(0, len(pairs), 5):
        part = block(pairs[begin : begin + 5], compression)
        handles.append((pairs[min(begin + 4, len(pairs) - 1)][0] + b"\0", varint(len(table)) + varint(len(part) - 5)))
        table += part
    meta, index = block([]), block(handles)
    footer = varint(len(table)) + varint(len(meta) - 5) + varint(len(table + meta)) + varint(len(index) - 5)
    footer = footer.ljust(40, b"\0") + bytes.fromhex("57fb808b247547db")
    prefix.with_name(f"{prefix.name}.index").write_bytes(table + meta + index + footer)
    return prefix


def read_bundle(prefix: Path, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, Array]:
    """The variables whose names are ``wanted``."""
    bundle = read_index(prefix)
    return {name: bundle.read(name) for name in bundle.entries if wanted(name)}


def google_variables(state: dict[str, torch.Tensor]) -> dict[str, Array]:
    """A PyTorch state dict under the names and in the shapes of Google's code, with what an optimizer keeps."""
    variables: dict[str, Array] = {"global_step": np.array(125_000, np.int64)}
    for name, value in state.items():
        if name.startswith("predictions.decoder"):
            continue
        renamed = name
        for theirs, ours in SCOPES.items():
            renamed = renamed.replace(theirs, ours)
        array = value.numpy()
        if renamed.endswith("_embeddings.weight"):
            renamed = renamed.removesuffix(".weight")
        elif "output_weight" in renamed:
            renamed += "s"
        elif "LayerNorm" in renamed:
            renamed = renamed.replace("/weight", "/gamma").replace("/bias", "/beta").replace(".weight", "/gamma")
            renamed = renamed.replace(".bias", "/beta")
        else:
            renamed = renamed.replace(".weight", "/weight").replace(".bias", "/bias")
            array = array.T if renamed.endswith("/weight") else array
            renamed = renamed.replace("/weight", "/kernel")
        variables[renamed] = np.ascontiguousarray(array)
        variables[f"{renamed}/adam_m"] = variables[f"{renamed}/adam_v"] = np.zeros(2, np.float64)
    return variables


def google_folder(folder: Path, model: Any, write: Callable[[Path, dict[str, Array]], object] = write_bundle) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "model.ckpt-best", google_variables(model.state_dict()))
    config = {name: value for name, value in model.config.to_dict().items() if name in GOOGLE_CONFIG}
    (folder / "albert_config.json").write_text(json.dumps(config | {"hidden_act": "gelu", "net_structure_type": 0}))
    return folder


GOOGLE_CONFIG = (
    "vocab_size", "embedding_size", "hidden_size", "num_hidden_layers", "num_hidden_groups", "inner_group_num",
    "num_attention_heads", "intermediate_size", "max_position_embeddings", "type_vocab_size", "initializer_range",
    "attention_probs_dropout_prob", "hidden_dropout_prob",
)  # fmt: skip


def original(folder: Path, architecture: str, **config: Any) -> Any:
    save_checkpoint(folder, architecture, num_hidden_groups=2, inner_group_num=2, **config)
    return getattr(transformers, architecture).from_pretrained(folder).eval()


def rebuilt(folder: Path) -> Any:
    """The model that transformers makes of what is read."""
    config = transformers.AlbertConfig.from_dict(read_config(folder))
    model = getattr(transformers, config.architectures[0])(config)
    missing, unexpected = model.load_state_dict(read_tensors(folder), strict=False)
    # Both are tied, to the word embeddings and to predictions.bias.
    assert set(missing) <= {"predictions.decoder.weight", "predictions.decoder.bias"}
    assert not unexpected
    return model.eval()


def outputs(model: Any) -> list[torch.Tensor]:
    ids = torch.tensor([[2, 7, 9, 11, 3, 8, 6, 3]])
    with torch.inference_mode():
        found = model(ids, token_type_ids=torch.tensor([[0] * 5 + [1] * 3]))
    return [value for value in found.to_tuple() if value.dim() > 1]


def assert_same_outputs(one: Any, other: Any) -> None:
    pairs = list(zip(outputs(one), outputs(other), strict=True))
    assert pairs
    for first, second in pairs:
        # The weights are the same bits; a matrix product sums in another order where they lie elsewhere in memory.
        torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """A folder as run_classifier.py leaves it."""
    model = original(tmp_path / "original", "AlbertForSequenceClassification", num_labels=3)
    return google_folder(tmp_path / "google", model)


@pytest.mark.parametrize(("architecture", "config"), HEADS)
def test_a_checkpoint_of_google_answers_as_the_model_that_it_holds(
    tmp_path: Path, architecture: str, config: dict[str, Any]
) -> None:
    model = original(tmp_path / "original", architecture, **config)
    folder = google_folder(tmp_path / "google", model)

    assert is_tensorflow(folder)
    assert read_config(folder)["architectures"] == [architecture]
    assert_same_outputs(rebuilt(folder), model)


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
@pytest.mark.parametrize(("architecture", "config"), HEADS)
def test_what_tensorflow_itself_wrote_is_read(tmp_path: Path, architecture: str, config: dict[str, Any]) -> None:
    tf: Any = pytest.importorskip("tensorflow", reason="TensorFlow is not installed").compat.v1

    def save(prefix: Path, variables: dict[str, Array]) -> None:
        with tf.Graph().as_default(), tf.Session() as session:
            for name, value in variables.items():
                tf.get_variable(name, initializer=tf.constant(value))
            session.run(tf.global_variables_initializer())
            tf.train.Saver().save(session, str(prefix))

    model = original(tmp_path / "original", architecture, **config)

    assert_same_outputs(rebuilt(google_folder(tmp_path / "google", model, save)), model)


@pytest.mark.filterwarnings("ignore")  # TensorFlow's own
def test_a_variable_that_tensorflow_partitioned_is_refused(tmp_path: Path) -> None:
    tf: Any = pytest.importorskip("tensorflow", reason="TensorFlow is not installed").compat.v1
    with tf.Graph().as_default(), tf.Session() as session:
        tf.get_variable("table", (4, 6), partitioner=tf.fixed_size_partitioner(2))
        session.run(tf.global_variables_initializer())
        tf.train.Saver().save(session, str(tmp_path / "model.ckpt"))

    with pytest.raises(CheckpointError, match="table is partitioned into slices"):
        read_bundle(tmp_path / "model.ckpt")


def test_every_data_type_and_several_data_files_are_read(tmp_path: Path) -> None:
    values = np.array([[1.5, -2.0, 0.0], [3.25, 65280.0, -0.5]], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    stored: dict[str, Array] = {
        "a": values,
        "b": values.astype(np.float16),
        "c": bits,
        "d": np.arange(300),
        "e": np.array(7),
    }

    found = read_bundle(write_bundle(tmp_path / "model.ckpt-1", stored, shards=3))

    assert found.keys() == stored.keys()
    assert np.array_equal(found["a"], values)
    assert found["b"].dtype == np.float16
    assert np.array_equal(found["c"], values)
    assert np.array_equal(found["d"], np.arange(300))
    assert found["e"].shape == ()


def test_an_unwanted_variable_of_another_type_does_no_harm(tmp_path: Path) -> None:
    prefix = write_bundle(tmp_path / "model.ckpt", {"step": np.zeros(3, np.int32), "w": np.ones(2, np.float32)})

    assert list(read_bundle(prefix, lambda name: name == "w")) == ["w"]
    with pytest.raises(CheckpointError, match="step has TensorFlow's data type 3"):
        read_bundle(prefix)


def test_a_checksum_is_compared_where_the_package_for_it_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "google_crc32c", SimpleNamespace(value=crc32c))
    prefix = write_bundle(tmp_path / "model.ckpt", {"w": np.ones(2, np.float32)})
    assert np.array_equal(read_bundle(prefix)["w"], [1, 1])
    data = tmp_path / "model.ckpt.data-00000-of-00001"
    data.write_bytes(data.read_bytes().replace(b"\x80\x3f", b"\x81\x3f", 1))

    with pytest.raises(CheckpointError, match="checksum of w is wrong"):
        read_bundle(prefix)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"model.ckpt-best.index": lambda data: data[:-1]}, "bad magic"),
        ({"model.ckpt-best.index": lambda data: data[:20]}, "bad magic"),
        ({"model.ckpt-best.index": lambda data: data[:-8] + bytes(8)}, "bad magic"),
        ({"model.ckpt-best.index": lambda data: b""}, r"best\.index: the file is empty"),
        ({"model.ckpt-best.index": lambda data: data[200:]}, r"best\.index: damaged or truncated"),
        ({"model.ckpt-best.index": lambda data: b"version https://git-lfs.github.com/spec/v1\n"}, "git-lfs"),
        ({"model.ckpt-best.data-00000-of-00001": lambda data: data[:1000]}, "00001: .* lies outside"),
        ({"model.ckpt-best.data-00000-of-00001": lambda data: b"version https://git-lfs.github.com\n"}, "git-lfs"),
        ({"model.ckpt-best.data-00000-of-00001": lambda data: None}, r"00001: no such file"),
    ],
)
def test_a_damaged_file_is_named(
    classifier: Path, damage: dict[str, Callable[[bytes], bytes | None]], said: str
) -> None:
    for name, change in damage.items():
        changed = change((classifier / name).read_bytes())
        (classifier / name).unlink()
        if changed is not None:
            (classifier / name).write_bytes(changed)

    with pytest.raises(CheckpointError, match=said) as caught:
        read_tensors(classifier)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"compression": 1}, "compressed index"),
        ({"endianness": 1}, "big-endian"),
        ({"more": ((7, b"\x08\x00"),)}, "partitioned into slices"),
    ],
)
def test_a_bundle_of_another_kind_is_refused(tmp_path: Path, options: dict[str, Any], said: str) -> None:
    prefix = write_bundle(tmp_path / "model.ckpt", {"w": np.ones(2, np.float32)}, **options)

    with pytest.raises(CheckpointError, match=said):
        read_bundle(prefix)


def test_a_changed_byte_of_an_index_raises_no_other_error(tmp_path: Path) -> None:
    variables = {f"variable/{number}": np.ones(2, np.float32) for number in range(12)}
    prefix = write_bundle(tmp_path / "model.ckpt", variables)
    path, random = tmp_path / "model.ckpt.index", np.random.default_rng(0)
    whole = path.read_bytes()
    for _ in range(300):
        changed = bytearray(whole)
        changed[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(changed)
        with contextlib.suppress(CheckpointError):
            read_bundle(prefix)


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("end_logits/dense_0/kernel", "run_squad_v2"),
        ("bert/encoder/layer_0/attention/self/query/kernel", "no variable of Google's ALBERT"),
        ("model/layer/kernel/.ATTRIBUTES/VARIABLE_VALUE", "tf.train.Checkpoint"),
    ],
)
def test_another_model_is_refused(classifier: Path, variable: str, said: str) -> None:
    write_bundle(classifier / "model.ckpt-best", {variable: np.ones((2, 2), np.float32)})

    with pytest.raises(CheckpointError, match=said):
        read_tensors(classifier)


def test_a_variable_outside_of_the_model_is_left_out(classifier: Path) -> None:
    write_bundle(classifier / "model.ckpt-best", {"loss_scale": np.ones(()), "module/output_bias": np.ones(3, "f4")})

    assert list(read_tensors(classifier)) == ["classifier.bias"]


@pytest.mark.parametrize(
    ("names", "state", "chosen"),
    [
        (["model.ckpt-900", "model.ckpt-1000"], None, "model.ckpt-1000"),
        (["model.ckpt-900", "model.ckpt-best"], None, "model.ckpt-best"),
        (["model.ckpt-900", "model.ckpt-1000"], "/other/machine/model.ckpt-900", "model.ckpt-900"),
        (["model.ckpt-900", "model.ckpt-1000"], "model.ckpt-800", "model.ckpt-1000"),
        (["albert_model.ckpt"], None, "albert_model.ckpt"),
    ],
)
def test_one_of_several_checkpoints_is_chosen(tmp_path: Path, names: list[str], state: str | None, chosen: str) -> None:
    for name in names:
        write_bundle(tmp_path / name, {"output_bias": np.full(2, names.index(name), np.float32)})
    if state:
        (tmp_path / "checkpoint").write_text(f'model_checkpoint_path: "{state}"\nall_model_checkpoint_paths: "x"\n')

    assert read_tensors(tmp_path)["classifier.bias"].tolist() == [names.index(chosen)] * 2


def test_weights_of_pytorch_come_first(classifier: Path) -> None:
    (classifier / "model.safetensors").touch()

    assert not is_tensorflow(classifier)
    assert not is_tensorflow(classifier.parent / "original")


def test_the_configuration_of_google_is_translated(classifier: Path) -> None:
    config = read_config(classifier)

    assert config["model_type"] == "albert"
    assert config["hidden_act"] == "gelu_new"  # what Google's code calls gelu
    assert config["layer_norm_eps"] == 1e-12
    assert config["num_hidden_groups"] == 2
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"}


def test_a_configuration_of_transformers_is_taken_as_it_is(classifier: Path) -> None:
    (classifier / "albert_config.json").unlink()
    given = {"model_type": "albert", "hidden_act": "gelu", "architectures": ["AlbertForTokenClassification"]}
    (classifier / "config.json").write_text(json.dumps(given))

    assert read_config(classifier) == given


def test_a_missing_configuration_is_named(classifier: Path) -> None:
    (classifier / "albert_config.json").write_text('{"vocab_size": 30}')
    with pytest.raises(CheckpointError, match=r"albert_config\.json: no hidden_size"):
        read_config(classifier)

    (classifier / "albert_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no albert_config\.json"):
        read_config(classifier)


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["30k-clean.model", "30k-clean.vocab"], "30k-clean.model"),
        (["albertvi.model"], "albertvi.model"),
        (["spiece.model", "other.model", "vocab.txt"], "spiece.model"),
        (["vocab_chinese.txt"], "vocab_chinese.txt"),
        (["30k-clean.vocab"], None),
    ],
)
def test_the_vocabulary_is_found_under_any_name(tmp_path: Path, names: list[str], chosen: str | None) -> None:
    for name in names:
        (tmp_path / name).touch()

    assert vocabulary_file(tmp_path) == (tmp_path / chosen if chosen else None)


def test_two_vocabularies_are_refused(tmp_path: Path) -> None:
    for name in ("a.model", "b.model"):
        (tmp_path / name).touch()

    with pytest.raises(CheckpointError, match=r"a\.model and b\.model"):
        vocabulary_file(tmp_path)


def write_h5(path: Path, state: dict[str, torch.Tensor]) -> None:
    """As Keras' save_weights lays out a TFAlbertForSequenceClassification."""
    h5py: Any = pytest.importorskip("h5py", reason="h5py is not installed")
    with h5py.File(path, "w") as file:
        for name, value in state.items():
            table, norm = name.endswith("_embeddings.weight"), "LayerNorm" in name or "layer_norm" in name
            parts = re.split(r"(?<!_)\.", re.sub(r"(groups|layers)\.", r"\1_._", name))
            if norm:
                parts[-1] = {"weight": "gamma", "bias": "beta"}[parts[-1]]
            elif parts[-1] == "weight":
                parts[-1] = ("weight" if "word" in name else "embeddings") if table else "kernel"
            array = value.numpy().T if parts[-1] == "kernel" else value.numpy()
            file["/".join([parts[0], "tf_albert_for_sequence_classification", *parts]) + ":0"] = array
        file.create_group("dropout_4")


def test_an_h5_file_of_transformers_4_answers_as_the_model_that_it_holds(tmp_path: Path) -> None:
    model = original(tmp_path / "original", "AlbertForSequenceClassification", num_labels=3)
    folder = tmp_path / "h5"
    model.config.save_pretrained(folder)
    write_h5(folder / "tf_model.h5", model.state_dict())

    assert is_tensorflow(folder)
    assert_same_outputs(rebuilt(folder), model)

    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": None}))
    assert read_config(folder)["architectures"] == ["AlbertForSequenceClassification"]


def test_an_h5_file_without_h5py_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "tf_model.h5").write_bytes(b"\x89HDF\r\n")

    with pytest.raises(CheckpointError, match="the extra 'convert'"):
        read_tensors(tmp_path)


@pytest.mark.parametrize(("content", "said"), [(b"\x89HDF\r\n", "damaged"), (b"", "empty")])
def test_a_damaged_h5_file_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    pytest.importorskip("h5py", reason="h5py is not installed")
    (tmp_path / "tf_model.h5").write_bytes(content)

    with pytest.raises(CheckpointError, match=said):
        read_tensors(tmp_path)


def test_a_folder_of_google_converts(tmp_path: Path) -> None:
    """From the files of its release to a version that answers as the model."""
    pieces = word_pieces()
    model = original(tmp_path / "original", "AlbertForSequenceClassification", vocab_size=pieces.get_vocab_size())
    folder = google_folder(tmp_path / "google", model)
    words = sorted(pieces.get_vocab().items(), key=lambda pair: pair[1])
    (folder / "vocab_chinese.txt").write_text("\n".join(piece for piece, _ in words) + "\n", encoding="utf-8")

    parity = read_manifest(convert(str(folder), tmp_path / "repo", Options("google"))).parity
    assert parity["different_answers"] == 0
