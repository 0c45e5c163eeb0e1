"""safetensors files: what the library wrote is read, what is not whole is refused before a tensor is trusted."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save, save_file
from torch import Tensor

from chatterbox_nb.checkpoint.tensorfile import DTYPES, Entry, TensorFile, make_header
from chatterbox_nb.errors import SourceError

NAMES = {dtype: name for name, dtype in DTYPES.items()}


def some_tensors() -> dict[str, Tensor]:
    """Every dtype, and every shape that is special."""
    generator = torch.Generator().manual_seed(0)
    tensors = {
        f"of {name}": torch.randint(0, 2 if name == "BOOL" else 100, (3, 5), generator=generator).to(dtype)
        for name, dtype in DTYPES.items()
    }
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.empty(0, 4)
    tensors["one"] = torch.tensor([7], dtype=torch.int8)
    tensors['größe "1"\t\u001f'] = torch.ones(2, 1, 2, 1)
    return tensors


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that `safetensors` wrote."""
    path = tmp_path / "some.safetensors"
    save_file(some_tensors(), path)
    return path


def raw_file(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def refusal(path: Path) -> str:
    """The one line that opening a file fails with: the file, what is wrong, the cure."""
    with pytest.raises(SourceError) as caught:
        TensorFile(path)
    message = str(caught.value)
    assert str(path) in message
    assert message.endswith("Delete it and load again.")
    assert "\n" not in message
    return message


# Reading


def test_every_tensor_that_safetensors_wrote_is_read_back(path: Path) -> None:
    with TensorFile(path) as file:
        assert set(file.entries) == set(some_tensors())
        for name, tensor in some_tensors().items():
            read = file.read(name)
            assert read.dtype == tensor.dtype
            assert read.shape == tensor.shape
            assert torch.equal(read, tensor)


def test_an_entry_tells_dtype_shape_and_place(path: Path) -> None:
    with TensorFile(path) as file:
        entry = file.entries["of BF16"]
        assert entry == Entry(torch.bfloat16, (3, 5), entry.offset, 30)
        stored = path.read_bytes()[entry.offset : entry.offset + entry.length]
        assert stored == bytes(some_tensors()["of BF16"].view(torch.uint8).flatten().tolist())


def test_tensors_may_be_read_in_any_order_and_again(path: Path) -> None:
    tensors = some_tensors()
    with TensorFile(path) as file:
        for name in [*sorted(tensors, reverse=True), *sorted(tensors)]:
            assert torch.equal(file.read(name), tensors[name])


def test_metadata_is_no_tensor(tmp_path: Path) -> None:
    path = tmp_path / "with.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata={"format": "pt"})
    with TensorFile(path) as file:
        assert list(file.entries) == ["a"]
        assert torch.equal(file.read("a"), torch.ones(2))


def test_a_file_without_tensors_is_whole(tmp_path: Path) -> None:
    path = raw_file(tmp_path / "none.safetensors", {})
    with TensorFile(path) as file:
        assert file.entries == {}


def test_what_was_read_outlives_the_file(path: Path) -> None:
    with TensorFile(path) as file:
        read = file.read("of F32")
    path.write_bytes(b"\xff" * path.stat().st_size)
    path.unlink()
    assert torch.equal(read, some_tensors()["of F32"])


def test_two_readings_share_no_memory(path: Path) -> None:
    with TensorFile(path) as file:
        first, second, neighbour = file.read("of F32"), file.read("of F32"), file.read("of I32")
        first.fill_(-1)
        assert torch.equal(second, some_tensors()["of F32"])
        assert torch.equal(neighbour, some_tensors()["of I32"])
        starts = {read.untyped_storage().data_ptr() for read in (first, second, neighbour)}
        assert len(starts) == 3


def test_a_tensor_holds_no_more_memory_than_its_own(path: Path) -> None:
    with TensorFile(path) as file:
        for name, entry in file.entries.items():
            assert file.read(name).untyped_storage().nbytes() == entry.length


def test_a_reading_can_be_written_to_and_leaves_the_file_alone(path: Path) -> None:
    before = path.read_bytes()
    with TensorFile(path) as file:
        file.read("of F32").zero_()
        assert torch.equal(file.read("of F32"), some_tensors()["of F32"])
    assert path.read_bytes() == before


def test_an_observer_is_given_the_bytes_of_every_reading(path: Path) -> None:
    seen: list[bytes] = []
    with TensorFile(path, lambda data: seen.append(bytes(data))) as file:
        file.read("one")
        file.read("empty")
        file.read("of I64")
        place = file.entries["of I64"]
    assert seen == [b"\x07", b"", path_bytes(path, place)]


def path_bytes(path: Path, entry: Entry) -> bytes:
    return path.read_bytes()[entry.offset : entry.offset + entry.length]


def test_the_file_is_closed_when_the_block_ends(path: Path) -> None:
    with TensorFile(path) as file:
        pass
    with pytest.raises(ValueError, match="closed"):
        file.read("of F32")


# Writing headers


def test_a_header_is_the_one_safetensors_writes(path: Path) -> None:
    header, _ = make_header(
        [(name, NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in some_tensors().items()]
    )
    assert path.read_bytes()[: len(header)] == header


def test_the_data_follow_in_the_order_that_is_told(path: Path) -> None:
    tensors = some_tensors()
    header, order = make_header([(name, NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()])
    data = b"".join(bytes(tensors[name].reshape(-1).view(torch.uint8).tolist()) for name in order)
    assert header + data == path.read_bytes()


def test_the_size_of_a_header_counts_its_own_length(path: Path) -> None:
    header, _ = make_header(
        [(name, NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in some_tensors().items()]
    )
    with TensorFile(path) as file:
        assert min(entry.offset for entry in file.entries.values()) == len(header)


def test_metadata_is_what_a_header_of_ours_leaves_out(tmp_path: Path) -> None:
    """The published files carry none, and their sizes are met to the byte (test_inventory)."""
    path = tmp_path / "with.safetensors"
    save_file({"a": torch.ones(2)}, path, metadata={"format": "pt"})
    ours, _ = make_header([("a", "F32", (2,))])
    theirs = path.read_bytes()
    assert json.loads(theirs[8:-8]) == {
        "__metadata__": {"format": "pt"},
        **json.loads(ours[8:]),
    }


shapes = st.lists(st.integers(0, 4), max_size=3).map(tuple)
listings = st.dictionaries(
    st.text(min_size=1, max_size=8), st.tuples(st.sampled_from(list(DTYPES)), shapes), max_size=6
)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(listings)
def test_any_listing_has_the_header_safetensors_writes(listing: dict[str, tuple[str, tuple[int, ...]]]) -> None:
    header, order = make_header([(name, dtype, shape) for name, (dtype, shape) in listing.items()])
    theirs = save({name: torch.zeros(shape, dtype=DTYPES[dtype]) for name, (dtype, shape) in listing.items()})
    assert theirs[: len(header)] == header
    assert sorted(order) == sorted(listing)
    assert set(load(header + bytes(len(theirs) - len(header)))) == set(listing)


# Files that are not whole


def header_bytes(path: Path) -> int:
    return 8 + int(struct.unpack("<Q", path.read_bytes()[:8])[0])


@pytest.mark.parametrize(
    ("length", "why"),
    [
        (lambda path: 0, "it has only 0 bytes"),
        (lambda path: 5, "it has only 5 bytes"),
        (lambda path: 8, "its header claims"),
        (lambda path: 100, "its header claims"),
        (lambda path: header_bytes(path) - 1, "its header claims"),
        (header_bytes, "so it was cut off"),
        (lambda path: header_bytes(path) + 10, "so it was cut off"),
        (lambda path: path.stat().st_size - 1, "so it was cut off"),
    ],
    ids=["empty", "in the length", "no header", "in the header", "header less a byte", "no data", "in the data", "1"],
)
def test_a_file_that_was_cut_off_is_refused(path: Path, length: Callable[[Path], int], why: str) -> None:
    path.write_bytes(path.read_bytes()[: length(path)])
    assert why in refusal(path)


def test_a_cut_off_file_is_told_with_both_sizes(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-7])
    assert f"it has {size - 7} bytes and should have {size}, so it was cut off" in refusal(path)


def test_bytes_too_many_are_refused(path: Path) -> None:
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"xyz")
    assert f"it has {size + 3} bytes and should have {size}." in refusal(path)


@pytest.mark.parametrize("claimed", [2**64 - 1, 2**63, 100_000_001, 4000])
def test_a_header_longer_than_the_file_or_the_format_allows_is_refused_unread(path: Path, claimed: int) -> None:
    path.write_bytes(struct.pack("<Q", claimed) + path.read_bytes()[8:])
    assert f"its header claims {claimed} of its {path.stat().st_size} bytes" in refusal(path)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"garbage",
        b"\xff\xfe\xfd",
        b"[1, 2",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b'{"a": 5}',
        b'{"a": []}',
        b"[" * 9000,
    ],
)
def test_a_header_that_is_no_listing_is_refused(tmp_path: Path, header: bytes) -> None:
    refusal(raw_file(tmp_path / "garbage.safetensors", header))


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t3_cfg.pt"
    torch.save({"a": torch.ones(100)}, path)
    refusal(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 2129653744\n")
    refusal(path)


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        ({"dtype": "F32", "shape": [2]}, "'a' has no data_offsets"),
        ({"shape": [2], "data_offsets": [0, 8]}, "'a' has no dtype"),
        ({"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}, "'a' is F8_E4M3, which is none of"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "'a' takes 8 bytes and its shape [3] needs 12"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}, "'a' takes -8 bytes"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, "'a' has the shape [2] from byte -8 to 0"),
        ({"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}, "'a' has the shape [-1, -2]"),
        ({"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}, "'a' has the shape [2.0]"),
        ({"dtype": "F32", "shape": ["2"], "data_offsets": [0, 8]}, "'a' has the shape ['2']"),
        ({"dtype": "F32", "shape": 2, "data_offsets": [0, 8]}, "not iterable"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0]}, "not enough values"),
        ({"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}, "unhashable"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "'a' begins at byte"),
    ],
)
def test_a_tensor_that_makes_no_sense_is_refused(tmp_path: Path, tensor: dict[str, Any], why: str) -> None:
    assert why in refusal(raw_file(tmp_path / "wrong.safetensors", {"a": tensor}, bytes(8)))


def test_tensors_that_lie_on_top_of_each_other_are_refused(tmp_path: Path) -> None:
    both = {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in ("a", "b")}
    assert "'b' begins at byte" in refusal(raw_file(tmp_path / "wrong.safetensors", both, bytes(8)))


def test_a_hole_between_tensors_is_refused(tmp_path: Path) -> None:
    header = {
        "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "F32", "shape": [1], "data_offsets": [8, 12]},
    }
    assert "'b' begins at byte" in refusal(raw_file(tmp_path / "wrong.safetensors", header, bytes(12)))


def test_a_file_that_is_cut_off_while_it_is_open_is_told_by_the_tensor(path: Path) -> None:
    with TensorFile(path) as file:
        entry = file.entries["of F32"]
        with path.open("r+b") as other:
            other.truncate(entry.offset + 4)
        with pytest.raises(SourceError) as caught:
            file.read("of F32")
    assert str(caught.value) == f"{path} ended while 'of F32' was read. Delete it and load again."


def test_a_missing_file_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        TensorFile(tmp_path / "none.safetensors")
    assert str(caught.value) == (
        f"There is no file {tmp_path / 'none.safetensors'}. Load again to fetch it, or name the right folder."
    )


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    folder = tmp_path / "folder.safetensors"
    folder.mkdir()
    refusal(folder)
