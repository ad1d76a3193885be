"""Tokens from files: what is in them comes out, whatever else is in them is refused in one line and never run."""

import os
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from vqtool.diagnostics import InputError
from vqtool.diagnostics.recording.token_files import read_tokens

TOKENS = np.arange(24).reshape(4, 2, 3)


def write(folder):
    """The same tokens in files of every kind."""
    np.save(folder / "a.npy", TOKENS)
    np.savez(folder / "one.npz", only=TOKENS)
    np.savez(folder / "two.npz", first=TOKENS, second=-TOKENS)
    torch.save(torch.from_numpy(TOKENS), folder / "a.pt")
    torch.save({"codes": torch.from_numpy(TOKENS).int(), "scale": torch.ones(3)}, folder / "one.pth")
    torch.save({"first": torch.from_numpy(TOKENS), "second": torch.zeros(2).long()}, folder / "two.pt")
    columns = {"name": list("abcd"), "ids": TOKENS.tolist()}
    pq.write_table(pa.table(columns), folder / "one.parquet")
    pq.write_table(pa.table({f"layer{n}": TOKENS[:, 0, n] for n in range(3)}), folder / "columns.parquet")
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("a.npy", None),
        ("one.npz", None),
        ("two.npz", "first"),
        ("a.pt", None),
        ("one.pth", None),
        ("one.pth", "codes"),
        ("two.pt", "first"),
        ("one.parquet", None),
        ("one.parquet", "ids"),
    ],
)
def test_the_tokens_of_a_file_come_out_as_they_are(files, name, key):
    np.testing.assert_array_equal(read_tokens(files / name, key), TOKENS)


def test_an_array_stays_on_disk(files):
    assert isinstance(read_tokens(files / "a.npy"), np.memmap)


def test_columns_stand_side_by_side(files):
    np.testing.assert_array_equal(read_tokens(files / "columns.parquet", "layer0,layer1,layer2"), TOKENS[:, 0])
    np.testing.assert_array_equal(read_tokens(files / "columns.parquet", "layer1"), TOKENS[:, 0, 1])


class Payload:
    """What makes a folder as soon as it is unpickled."""

    def __init__(self, folder):
        self.made = folder / "made"

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


def spoilt(folder):
    """Files that are no files of tokens: what each is refused for."""
    np.save(folder / "floats.npy", np.ones(3))
    np.save(folder / "none.npy", np.zeros((0, 4), int))
    np.save(folder / "objects.npy", np.array([Payload(folder)], object), allow_pickle=True)
    (folder / "empty.npy").touch()
    (folder / "empty.parquet").touch()
    (folder / "junk.npy").write_bytes(b"not an array at all")
    (folder / "cut.npy").write_bytes((folder / "a.npy").read_bytes()[:-20])
    (folder / "pickle.npy").write_bytes(pickle.dumps(Payload(folder)))
    (folder / "junk.npz").write_bytes(b"no archive")
    torch.save({"x": Payload(folder)}, folder / "payload.pt")
    (folder / "pickle.pt").write_bytes(pickle.dumps(Payload(folder)))
    (folder / "junk.pt").write_bytes(b"no tensor")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"scale": torch.ones(3)}, folder / "floats.pt")
    (folder / "junk.parquet").write_bytes(b"no table")
    pq.write_table(pa.table({"ids": [[1, 2], [3]]}), folder / "ragged.parquet")
    pq.write_table(pa.table({"ids": [[1, 2], None]}), folder / "null_list.parquet")
    pq.write_table(pa.table({"ids": [[1, 2], [3, None]]}), folder / "null.parquet")
    pq.write_table(pa.table({"name": ["a"], "weight": [0.5]}), folder / "words.parquet")
    (folder / "tokens.txt").write_text("1 2 3")


REFUSED = {
    "nothing.npy": "there is no file",
    "tokens.txt": r"tokens are read from files \.npy, \.npz, \.pt, \.pth, \.parquet",
    "floats.npy": "float64: codes are integers",
    "none.npy": "holds no tokens",
    "objects.npy": "Python objects are not loaded",
    "empty.npy": "is empty",
    "empty.parquet": "is empty",
    "junk.npy": "cannot be read as .npy",
    "cut.npy": "cannot be read as .npy",
    "pickle.npy": "cannot be read as .npy",
    "junk.npz": "cannot be read as .npz",
    "two.npz": "key is missing: .* first, second",
    "payload.pt": "something else than tensors",
    "pickle.pt": "something else than tensors",
    "junk.pt": "something else than tensors",
    "list.pt": "holds a list",
    "floats.pt": "none of integers",
    "two.pt": "key is missing: .* first, second",
    "junk.parquet": "cannot be read as .parquet",
    "ragged.parquet": "not of one length: they have 1 to 2 values; pad them with -1",
    "null_list.parquet": "not of one length: some are null",
    "null.parquet": "1 nulls: what has no code is -1",
    "words.parquet": "none of integers",
    "columns.parquet": "key is missing: .* layer0, layer1, layer2",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_file_of_tokens_is_refused_in_one_line_and_runs_nothing(files, tmp_path, name):
    write(tmp_path)
    spoilt(tmp_path)
    with pytest.raises(InputError, match=REFUSED[name]) as error:
        read_tokens(tmp_path / name)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "made").exists()


def test_the_payload_would_run_where_it_is_unpickled(tmp_path):
    write(tmp_path)
    spoilt(tmp_path)
    pickle.loads((tmp_path / "pickle.pt").read_bytes())
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("name", "key", "told"),
    [
        ("a.npy", "x", "holds one"),
        ("a.pt", "x", "none by name"),
        ("two.npz", "fist", "did you mean 'first'"),
        ("two.pt", "third", "choose from first, second"),
        ("one.pth", "scale", "float32: codes are integers"),
        ("one.parquet", "idx", "did you mean 'ids'"),
        ("one.parquet", "name", "string: codes are integers"),
        ("columns.parquet", "layer0,layer9", "layer9"),
    ],
)
def test_a_key_that_names_no_tokens_is_refused_in_one_line(files, name, key, told):
    with pytest.raises(InputError, match=told) as error:
        read_tokens(files / name, key)
    assert "\n" not in str(error.value)
