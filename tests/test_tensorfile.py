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
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from chatterbox_nb.checkpoint import tensorfile
from chatterbox_nb.checkpoint.tensorfile import DTYPE_NAMES as NAMES
from chatterbox_nb.checkpoint.tensorfile import DTYPES, Entry, TensorFile, make_header, read_all, share_rows
from chatterbox_nb.errors import SourceError, TensorError


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
    seen: list[tuple[str, bytes]] = []
    with TensorFile(path, lambda name, data: seen.append((name, bytes(data)))) as file:
        file.read("one")
        file.read("empty")
        file.read("of I64")
        place = file.entries["of I64"]
    assert seen == [("one", b"\x07"), ("empty", b""), ("of I64", path_bytes(path, place))]


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


# Rows stored once


def repeated(dtype: torch.dtype = torch.float16) -> Tensor:
    """Seven rows, three of them distinct: c a b a a c b."""
    distinct = torch.arange(3 * 5).view(3, 5) % (2 if dtype == torch.bool else 100)
    distinct[1, 0] = distinct[0, 0]
    return distinct[[2, 0, 1, 0, 0, 2, 1]].to(dtype)


def same_bits(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


@pytest.fixture
def shared_path(tmp_path: Path) -> Path:
    """A file with a matrix of shared rows between two other tensors."""
    path = tmp_path / "shared.safetensors"
    tensorfile.save(path, {"a": torch.ones(2), "m": repeated(), "z": torch.zeros(3, 2)}, shared=["m"])
    return path


def test_each_row_is_stored_once_in_the_order_they_come() -> None:
    stored, rows = share_rows(repeated())
    assert torch.equal(stored, repeated()[:3])
    assert rows.tolist() == [0, 1, 2, 1, 1, 0, 2]


def test_rows_of_other_bits_are_other_rows() -> None:
    """0 and -0 are equal and not the same; a NaN is the same as itself."""
    matrix = torch.tensor([[0.0, 1.0], [-0.0, 1.0], [torch.nan, 1.0], [torch.nan, 1.0]])
    stored, rows = share_rows(matrix)
    assert rows.tolist() == [0, 1, 2, 2]
    assert same_bits(stored[rows.int()], matrix)


def test_what_does_not_lie_in_rows_in_memory_is_shared_all_the_same() -> None:
    matrix = repeated().t().contiguous().t()
    stored, rows = share_rows(matrix)
    assert len(stored) == 3
    assert torch.equal(stored[rows.int()], matrix)


@pytest.mark.parametrize(("count", "dtype"), [(32_768, torch.int16), (32_769, torch.int32)])
def test_rows_are_numbered_in_the_smallest_type_that_can(tmp_path: Path, count: int, dtype: torch.dtype) -> None:
    matrix = torch.arange(count, dtype=torch.int32).view(count, 1)
    assert share_rows(matrix)[1].dtype == dtype
    tensorfile.save(tmp_path / "many", {"m": matrix}, shared=["m"])
    assert torch.equal(read_all(tmp_path / "many")["m"], matrix)


@pytest.mark.parametrize("shape", [(3,), (), (2, 3, 4)])
def test_only_a_matrix_can_share_rows(shape: tuple[int, ...]) -> None:
    with pytest.raises(TensorError, match=r"Only a matrix can share rows, and this tensor is \["):
        share_rows(torch.zeros(shape))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_shared_rows_are_read_back_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    tensorfile.save(tmp_path / "shared", {"m": repeated(dtype)}, shared=["m"])
    with TensorFile(tmp_path / "shared") as file:
        assert same_bits(file.read("m"), repeated(dtype))


@pytest.mark.parametrize("shape", [(0, 4), (1, 1), (5, 1)])
def test_few_rows_or_none_are_read_back_too(tmp_path: Path, shape: tuple[int, int]) -> None:
    tensorfile.save(tmp_path / "shared", {"m": torch.ones(shape)}, shared=["m"])
    assert torch.equal(read_all(tmp_path / "shared")["m"], torch.ones(shape))


def test_the_file_holds_the_distinct_rows_and_where_each_goes(shared_path: Path) -> None:
    held = load_file(shared_path)
    assert {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in held.items()} == {
        "a": (torch.float32, (2,)),
        "m": (torch.float16, (3, 5)),
        "m.rows": (torch.int16, (7,)),
        "z": (torch.float32, (3, 2)),
    }


def test_an_entry_tells_the_published_shape_and_hides_the_companion(shared_path: Path) -> None:
    with TensorFile(shared_path) as file:
        entry = file.entries["m"]
        assert set(file.entries) == {"a", "m", "z"}
        assert entry == Entry(torch.float16, (7, 5), entry.offset, 7 * 5 * 2)
        stored = shared_path.read_bytes()[entry.offset : entry.offset + 3 * 5 * 2]
        assert stored == bytes(repeated()[:3].view(torch.uint8).flatten().tolist())


def test_shared_rows_are_put_together_in_memory_of_their_own(shared_path: Path) -> None:
    with TensorFile(shared_path) as file:
        first, second, viewed = file.read("m"), file.read("m"), file.view("m")
        first.zero_()
        assert torch.equal(second, repeated())
        assert torch.equal(viewed, repeated())
        assert second.untyped_storage().nbytes() == file.entries["m"].length


def test_nothing_is_put_together_before_it_is_read(tmp_path: Path) -> None:
    """A 6 MB file whose tensor has 4 TB."""
    path = tmp_path / "large.safetensors"
    rows = torch.zeros(1_000_000, dtype=torch.int16)
    save_file({"m": torch.zeros(1, 1_000_000), "m.rows": rows}, path)
    with TensorFile(path) as file:
        assert file.entries["m"].length == 4_000_000_000_000


def test_an_observer_is_given_the_same_bytes_as_of_the_plain_file(shared_path: Path, tmp_path: Path) -> None:
    """So that a model's hash tells its weights, not how they are stored."""
    plain = tmp_path / "plain.safetensors"
    tensorfile.save(plain, read_all(shared_path))
    assert bytes_told(shared_path) == bytes_told(plain)


def bytes_told(path: Path) -> list[bytes]:
    """What an observer is given of all tensors, read in the file's order."""
    seen: list[bytes] = []
    with TensorFile(path, lambda name, data: seen.append(bytes(data))) as file:
        for name in sorted(file.entries, key=lambda name: file.entries[name].offset):
            file.read(name)
    return seen


def test_without_shared_rows_a_file_is_the_one_safetensors_writes(path: Path, tmp_path: Path) -> None:
    tensorfile.save(tmp_path / "ours", some_tensors())
    assert (tmp_path / "ours").read_bytes() == path.read_bytes()


def test_metadata_is_written(tmp_path: Path) -> None:
    tensorfile.save(tmp_path / "with", {"m": repeated()}, shared=["m"], metadata={"format": "pt"})
    with TensorFile(tmp_path / "with") as file:
        assert file.metadata == {"format": "pt"}
        assert torch.equal(file.read("m"), repeated())


def test_all_that_is_read_can_be_saved_plain_by_safetensors(shared_path: Path, tmp_path: Path) -> None:
    save_file(read_all(shared_path), tmp_path / "plain")
    plain = load_file(tmp_path / "plain")
    assert {name: tuple(tensor.shape) for name, tensor in plain.items()} == {"a": (2,), "m": (7, 5), "z": (3, 2)}
    assert same_bits(plain["m"], repeated())


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"m.rows": torch.zeros(2, dtype=torch.int16)}, "'m.rows' tells the rows of 'm', which is not there"),
        ({"m": 3, "m.rows": torch.tensor([0, 3], dtype=torch.int16)}, "'m.rows' names row 3 of 3"),
        ({"m": 3, "m.rows": torch.tensor([0, -1], dtype=torch.int32)}, "'m.rows' names row -1 of 3"),
        ({"m": 0, "m.rows": torch.tensor([0], dtype=torch.int16)}, "'m.rows' names row 0 of 0"),
        ({"m": 3, "m.rows": torch.tensor([0, 1])}, "'m.rows' is I64, and rows are numbered in I16 or I32"),
        ({"m": 3, "m.rows": torch.ones(2)}, "'m.rows' is F32, and rows are numbered in I16 or I32"),
        (
            {"m": 3, "m.rows": torch.zeros(2, 1, dtype=torch.int16)},
            "'m.rows' is [2, 1] for a tensor [3, 4], and should be [V] for [R, D]",
        ),
        (
            {"m": torch.zeros(3), "m.rows": torch.zeros(2, dtype=torch.int16)},
            "'m.rows' is [2] for a tensor [3], and should be [V] for [R, D]",
        ),
        (
            {"m": 3, "m.rows": torch.zeros(2, dtype=torch.int16), "m.rows.rows": torch.zeros(2, dtype=torch.int16)},
            "'m.rows.rows' is [2] for a tensor [2], and should be [V] for [R, D]",
        ),
    ],
)
def test_rows_that_make_no_sense_are_refused_when_a_file_is_opened(
    tmp_path: Path, tensors: dict[str, Any], why: str
) -> None:
    path = tmp_path / "wrong.safetensors"
    save_file({name: torch.zeros(it, 4) if isinstance(it, int) else it for name, it in tensors.items()}, path)
    assert f": {why}. " in refusal(path)


def test_shared_rows_that_are_cut_off_while_the_file_is_open_are_told(shared_path: Path) -> None:
    with TensorFile(shared_path) as file:
        with shared_path.open("r+b") as other:
            other.truncate(file.entries["m"].offset + 4)
        with pytest.raises(SourceError, match="ended while 'm' was read"):
            file.read("m")


def test_a_shared_name_that_is_no_tensor_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(TensorError) as caught:
        tensorfile.save(tmp_path / "none", {"head.weight": repeated()}, shared=["head.weigth"])
    assert str(caught.value) == (
        "There is no tensor 'head.weigth' whose rows could be shared. Did you mean head.weight?"
    )
    assert not (tmp_path / "none").exists()


def test_a_name_that_would_be_read_as_a_companion_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(TensorError, match=r"'a\.rows' cannot be saved: names that end in \.rows"):
        tensorfile.save(tmp_path / "none", {"a.rows": torch.zeros(2)})
    assert not (tmp_path / "none").exists()
