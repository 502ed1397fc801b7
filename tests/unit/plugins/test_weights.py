"""Safetensors headers: read, and not believed."""

import struct

import pytest
from fakes_weights import write_safetensors
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import ModelBroken
from plugins.weights import MAX_HEADER, read_header, read_headers


def test_an_honest_header_is_read(tmp_path):
    """Names, types, shapes and sizes come out; metadata does not; several files are one model."""
    one = write_safetensors(tmp_path / "a", {"w": ("BF16", [2, 3]), "s": ("F32", [])})
    two = write_safetensors(tmp_path / "b", {"q": ("U32", [4]), "half": ("F4", [4])})
    tensors = read_headers([one, two])

    assert {name: (one.dtype, one.nbytes, one.elements) for name, one in tensors.items()} == {
        "w": ("BF16", 12, 6),
        "s": ("F32", 4, 1),
        "q": ("U32", 16, 4),
        "half": ("F4", 2, 4),
    }


def entry(**more):
    return {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **more}}


@pytest.mark.parametrize(
    ("header", "match"),
    [
        (entry(dtype="PICKLE"), "unknown type"),
        (entry(dtype=["F32"]), "unknown type"),
        (entry(dtype="F" * 100_000), "unknown type"),
        (entry(shape=[2, *[1] * 64]), "impossible"),
        (entry(shape=[1 << 63]), "impossible"),
        (entry(shape=[10**4000] * 4), "impossible"),
        (entry(shape=[3]), "needs 12 bytes"),
        (entry(shape=[-2]), "impossible"),
        (entry(shape=[True, 2]), "impossible"),
        (entry(shape=[2.0]), "impossible"),
        (entry(data_offsets=[8, 0]), "impossible"),
        (entry(data_offsets=[0]), "not described"),
        (entry(shape=5), "not described"),
        ({"w": []}, "not described"),
        (entry(data_offsets=[4, 12]), "begins at 4"),
        ({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, "begins at 0, not at 8"),
        ({"x": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [8, 8 + (4 << 40)]}}, "cut short"),
    ],
)
def test_a_header_that_lies_is_refused(tmp_path, header, match):
    """Types, shapes, sizes, gaps and overlaps are all checked against the file."""
    path = write_safetensors(tmp_path / "m.safetensors", {"w": ("F32", [2])}, header=header)
    with pytest.raises(ModelBroken, match=match):
        read_header(path)


@pytest.mark.parametrize("raw", [b"{", b"[]", b"[" * 50_000, b'{"a":1,"a":2}', b"\xff\xfe"])
def test_a_header_that_is_no_object_is_refused(tmp_path, raw):
    """Broken JSON, other JSON, depth bombs and names given twice."""
    path = write_safetensors(tmp_path / "m.safetensors", {}, raw=raw)
    with pytest.raises(ModelBroken, match="header is not"):
        read_header(path)


def test_lengths_that_lie_are_refused_before_anything_is_read(tmp_path):
    """A short file, a header longer than the file, and one longer than any header."""
    path = tmp_path / "m.safetensors"
    for content, match in [
        (b"abc", "3 bytes"),
        (struct.pack("<Q", 100) + b"{}", "cut short"),
        (struct.pack("<Q", MAX_HEADER + 1), "the limit"),
    ]:
        path.write_bytes(content)
        with pytest.raises(ModelBroken, match=match):
            read_header(path)
    with pytest.raises(ModelBroken, match="cannot be read"):
        read_header(tmp_path / "nowhere")


def test_a_truncated_or_padded_file_is_refused(tmp_path):
    """The tensors must fill the file exactly."""
    path = write_safetensors(tmp_path / "m.safetensors", {"w": ("F32", [100])})
    whole = path.read_bytes()
    for content in (whole[:-1], whole + b"x"):
        path.write_bytes(content)
        with pytest.raises(ModelBroken, match="cut short or padded"):
            read_header(path)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content):
    """Whatever is in the file, the answer is a header or `ModelBroken`."""
    path = tmp_path_factory.mktemp("fuzz") / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(content)) + content)
    try:
        tensors = read_header(path)
    except ModelBroken:
        return
    assert all(name for name in tensors)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "raw",
    [b'{"a":[' + b"{}," * 2_000_000 + b"{}]}", b'{"a":{"shape":[' + b"9" * 4000 + (b"," + b"9" * 4000) * 3000 + b"]}}"],
)
def test_a_header_costs_little_whatever_it_says(tmp_path, raw):
    """Millions of entries and numbers of thousands of digits are refused within seconds, in a short sentence."""
    path = write_safetensors(tmp_path / "m.safetensors", {}, raw=raw)
    with pytest.raises(ModelBroken) as caught:
        read_header(path)
    assert len(caught.value.message) < 300
