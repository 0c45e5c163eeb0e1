"""What can be loaded: the specs, how they are named, and how they are read from a folder."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from chatterbox_nb.checkpoint import catalog
from chatterbox_nb.checkpoint.catalog import CATALOG, DEMO_FOLDER, ENGLISH, carries_spec, read_spec
from chatterbox_nb.checkpoint.spec import TOKENIZERS, FileSpec, ModelSpec, RopeScaling, S3GenDims, T3Dims, VoiceRules
from chatterbox_nb.checkpoint.synthetic import TINY
from chatterbox_nb.errors import CheckpointError, SourceError
from chatterbox_nb.text import TextRules

# Nothing in it is a default, so that nothing comes back right by chance.
UNUSUAL = ModelSpec(
    name="unusual",
    title="Ünüsual",
    files=tuple(replace(file, name=f"{file.role}.bin", bytes=index) for index, file in enumerate(catalog.TURBO.files)),
    repo="somebody/unusual",
    licence="apache-2.0",
    languages=("de", "fr"),
    tokenizer="gpt2",
    t3=T3Dims(width=32, heads=2, rope_scaling=RopeScaling(factor=2.0)),
    s3gen=S3GenDims(codes=100),
    voice_encoder_width=8,
    text=TextRules(language="de", lowercase=True),
    voice=VoiceRules(min_seconds=0.25),
    max_tokens=10,
    sample_rate=16_000,
    defaults={"cfg_weight": 0.25},
    unused=("a", "b"),
    optional=(),
    on_host=("c",),
    ignores=("min_p",),
    closing_tokens=(1, 2),
    cropped_tokens=3,
)


def written(folder: Path, data: Any) -> Path:
    (folder / "config.json").write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return folder


def as_json(spec: ModelSpec, **changes: Any) -> dict[str, Any]:
    return {**json.loads(spec.to_json()), **changes}


# Naming a model


@pytest.mark.parametrize("name", catalog.names())
def test_every_name_that_is_listed_has_a_spec_of_that_name(name: str) -> None:
    assert catalog.spec(name).name == name


def test_english_and_demo_can_be_named() -> None:
    assert {"english", "demo"} <= set(catalog.names())


@pytest.mark.parametrize("name", ["chatterbox", "en", "English", "EN"])
def test_an_alias_and_any_case_mean_the_same_model(name: str) -> None:
    assert catalog.spec(name) is ENGLISH


@pytest.mark.parametrize("alias", catalog.ALIASES)
def test_every_alias_leads_to_a_model_and_hides_none(alias: str) -> None:
    assert catalog.ALIASES[alias] in catalog.names()
    assert alias not in catalog.names()


def test_a_misspelt_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(CheckpointError) as caught:
        catalog.spec("englsh")
    message = str(caught.value)
    assert message.startswith("There is no model 'englsh'; there are ")
    assert all(name in message for name in catalog.names())
    assert message.endswith("Did you mean english?")


def test_a_model_that_is_like_none_is_refused_without_a_guess() -> None:
    with pytest.raises(CheckpointError) as caught:
        catalog.spec("zzz")
    assert "Did you mean" not in str(caught.value)


# What is known of them


def test_english_has_the_published_repo_files_and_sizes() -> None:
    assert ENGLISH.repo == "ResembleAI/chatterbox"
    assert [(file.role, file.name, file.bytes) for file in ENGLISH.files] == [
        ("t3", "t3_cfg.safetensors", 2_129_653_744),
        ("s3gen", "s3gen.safetensors", 1_056_484_620),
        ("voice_encoder", "ve.safetensors", 5_695_784),
        ("tokenizer", "tokenizer.json", 25_470),
        ("voice", "conds.pt", 107_374),
    ]


@pytest.mark.parametrize("spec", [*CATALOG.values(), catalog.spec("demo"), TINY], ids=lambda spec: spec.name)
def test_every_spec_has_a_file_for_each_role_once(spec: ModelSpec) -> None:
    roles = [file.role for file in spec.files]
    own = TOKENIZERS[spec.tokenizer]
    assert sorted(roles) == sorted(["s3gen", "t3", "tokenizer", "voice", "voice_encoder", *own])
    assert spec.file("t3") is spec.files[roles.index("t3")]


@pytest.mark.parametrize("spec", [*CATALOG.values(), catalog.spec("demo"), TINY], ids=lambda spec: spec.name)
def test_the_sizes_of_every_spec_fit_together(spec: ModelSpec) -> None:
    t3 = spec.t3
    assert t3.width == t3.heads * t3.head_width
    assert max(t3.start_text, t3.stop_text) < t3.text_vocab
    assert spec.s3gen.codes <= t3.start_speech < t3.stop_speech < t3.speech_vocab
    positions = t3.positions if t3.gpt2 else t3.speech_positions
    assert max(spec.max_tokens, t3.prompt_tokens) <= positions


def test_multilingual_is_its_newest_and_speaks_23_languages_english_by_default() -> None:
    spec = catalog.spec("multilingual")
    assert spec is catalog.MULTILINGUAL_V3
    assert (len(spec.languages), spec.text.language, spec.t3.text_vocab) == (23, "en", 2454)
    assert [catalog.MULTILINGUAL_V2.defaults["repetition_penalty"], spec.defaults["repetition_penalty"]] == [2.0, 1.2]


@pytest.mark.parametrize(
    ("name", "repo", "t3"),
    [
        ("zh-cmn", "Chatterbox-Multilingual-zh-cmn", "t3_zh_cmn.safetensors"),
        ("es-mx-latam", "Chatterbox-Multilingual-es-mx-latam", "t3_es_mx_latam.safetensors"),
        ("pt-br", "Chatterbox-Multilingual-pt-br", "t3_pt_br.safetensors"),
        ("hi", "Chatterbox-Multilingual-hi", "t3_hi.safetensors"),
    ],
)
def test_a_pack_has_its_own_repo_and_shares_what_it_lacks(name: str, repo: str, t3: str) -> None:
    spec = catalog.spec(name)
    assert spec.repo == f"ResembleAI/{repo}"
    assert (spec.file("t3").name, spec.file("s3gen").name) == (t3, "s3gen_v3.safetensors")
    assert spec.languages == (spec.text.language,)
    shared = [file.role for file in spec.files if file.repo == "ResembleAI/chatterbox"]
    assert shared == ["voice_encoder", "cangjie", "voice"]


def test_the_demo_is_embedded_and_has_no_repo() -> None:
    demo = catalog.spec("demo")
    assert demo.repo is None
    assert all((DEMO_FOLDER / file.name).is_file() for file in demo.files)


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        ENGLISH.max_tokens = 1  # type: ignore[misc]


# Specs in folders


@pytest.mark.parametrize(
    "spec", [*CATALOG.values(), catalog.spec("demo"), TINY, UNUSUAL], ids=lambda spec: str(spec.name)
)
def test_a_spec_that_was_written_is_read_back_equal(spec: ModelSpec, tmp_path: Path) -> None:
    assert read_spec(written(tmp_path, spec.to_json())) == spec


def test_the_unusual_spec_differs_from_the_defaults_everywhere() -> None:
    """Or the round trip above would not show that a field is carried."""
    plain = ModelSpec(name="", title="", files=())
    same = [field.name for field in fields(ModelSpec) if getattr(UNUSUAL, field.name) == getattr(plain, field.name)]
    assert same == []


def test_what_is_read_back_is_made_of_the_same_classes(tmp_path: Path) -> None:
    spec = read_spec(written(tmp_path, UNUSUAL.to_json()))
    for field in fields(ModelSpec):
        ours, theirs = getattr(UNUSUAL, field.name), getattr(spec, field.name)
        assert type(theirs) is type(ours)
        assert is_dataclass(theirs) == is_dataclass(ours)
    assert isinstance(spec.t3.rope_scaling, RopeScaling)
    assert all(isinstance(file, FileSpec) for file in spec.files)


def test_a_spec_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    data = as_json(ENGLISH)
    kept = {name: data[name] for name in ("chatterbox_nb", "name", "title", "files")}
    spec = read_spec(written(tmp_path, kept))
    assert spec.t3 == T3Dims()
    assert spec.max_tokens == 1000


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        ({"architectures": ["LlamaForCausalLM"]}, "its 'chatterbox_nb' is not 1"),
        (["chatterbox_nb"], "its 'chatterbox_nb' is not 1"),
        (5, "its 'chatterbox_nb' is not 1"),
        (as_json(TINY, chatterbox_nb=2), "its 'chatterbox_nb' is not 1"),
        (as_json(TINY, flavour="sweet"), "flavour"),
        (as_json(TINY, t3={"widht": 5}), "widht"),
        (as_json(TINY, t3=5), "'int' object"),
        (as_json(TINY, files=5), "'int' object"),
        (as_json(TINY, files=["t3_cfg.safetensors"]), "'str' object"),
        (as_json(TINY, files=[{"role": "t3", "name": "t3", "colour": "red"}]), "colour"),
        (as_json(TINY, files=[{"role": "t3", "name": "a"}]), "it names no file for s3gen, voice_encoder, tokenizer"),
        (as_json(TINY, tokenizer="multilingual"), "it names no file for cangjie"),
        (as_json(TINY, tokenizer="klingon"), "there is no tokenizer 'klingon'"),
        ({"chatterbox_nb": 1, "name": "x"}, "title"),
    ],
)
def test_a_spec_that_cannot_be_read_says_why(tmp_path: Path, data: Any, why: str) -> None:
    with pytest.raises(SourceError) as caught:
        read_spec(written(tmp_path, data))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'config.json'} is not a model spec this version reads: ")
    assert why in message
    assert message.endswith("Update chatterbox-nb, or delete the file and name the model.")
    assert "\n" not in message


def test_a_spec_that_is_not_there_or_not_text_is_a_source_error_too(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"config\.json"):
        read_spec(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match=r"config\.json"):
        read_spec(tmp_path)


def test_a_folder_carries_a_spec_when_its_config_is_ours(tmp_path: Path) -> None:
    assert carries_spec(written(tmp_path, TINY.to_json()))
    assert carries_spec(written(tmp_path, {"chatterbox_nb": 99})), "a later format is ours too, and is refused by name"


@pytest.mark.parametrize("data", ['{"architectures": []}', "{", "", "5", '"chatterbox_nb"', '["chatterbox_nb"]'])
def test_another_programs_config_is_no_spec(tmp_path: Path, data: str) -> None:
    assert not carries_spec(written(tmp_path, data))


def test_no_config_and_a_binary_one_are_no_specs(tmp_path: Path) -> None:
    assert not carries_spec(tmp_path)
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    assert not carries_spec(tmp_path)
