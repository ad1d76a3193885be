"""The codes of a split are computed once and memory-mapped afterwards."""

import os
import pickle

import numpy as np
import pytest
import torch

from vqtool.diagnostics.errors import InputError
from vqtool.vqgan.transformer import tokens
from vqtool.vqgan.transformer.conditions import NoCondition
from vqtool.vqgan.transformer.split import CodeSplit
from vqtool.vqgan.transformer.tokenizer import Tokenizer
from vqtool.vqgan.transformer.tokens import as_tensor, codes_of, hits


@pytest.fixture
def encoded(monkeypatch):
    """The number of crops of each call of ``Tokenizer.encode``; four crops are encoded at once."""
    sizes = []
    encode = Tokenizer.encode

    def counting(self, crops):
        sizes.append(len(crops))
        return encode(self, crops)

    monkeypatch.setattr(Tokenizer, "encode", counting)
    monkeypatch.setattr(tokens, "PIXELS", 4 * 16 * 16)
    return sizes


def files(cache):
    return sorted(path.name for path in (cache / "codes").iterdir())


def test_codes_are_those_of_each_image_alone(tokenizer, splits, tmp_path):
    images = splits["train"]
    codes = codes_of(tokenizer, images, tmp_path)
    assert codes.shape == (24, 4, 4)
    for row in range(24):
        assert np.array_equal(codes[row], tokenizer.encode(images.batch([row])[0])[0].numpy())
    assert len(np.unique(codes)) > 4


def test_mirrored_codes_are_those_of_mirrored_crops(tokenizer, splits, tmp_path):
    images = splits["test"]
    codes, plain = codes_of(tokenizer, images, tmp_path, mirrored=True), codes_of(tokenizer, images, tmp_path)
    crops = images.batch(range(8))[0]
    assert np.array_equal(codes, tokenizer.encode(crops.flip(-1)).numpy())
    assert not np.array_equal(codes, plain)
    assert not np.array_equal(codes, plain[..., ::-1])  # a network does not see the same in a mirror
    assert len(files(tmp_path)) == 2


def test_a_split_is_encoded_once(tokenizer, splits, tmp_path, encoded):
    first = np.array(codes_of(tokenizer, splits["train"], tmp_path))
    assert encoded == [4] * 6
    (file,) = (tmp_path / "codes").iterdir()
    written = file.stat().st_mtime_ns
    assert np.array_equal(codes_of(tokenizer, splits["train"], tmp_path), first)
    assert encoded == [4] * 6
    assert file.stat().st_mtime_ns == written


def test_the_last_batch_of_a_split_may_be_smaller(tokenizer, splits, tmp_path, encoded, monkeypatch):
    monkeypatch.setattr(tokens, "PIXELS", 7 * 16 * 16)
    codes = codes_of(tokenizer, splits["train"], tmp_path)
    assert encoded == [7, 7, 7, 3]
    assert np.array_equal(codes, tokenizer.encode(splits["train"].batch(range(24))[0]).numpy())


def test_codes_stay_on_disk(tokenizer, splits, tmp_path):
    for _ in range(2):  # where they are computed, and where they are found
        codes = codes_of(tokenizer, splits["test"], tmp_path)
        assert isinstance(codes, np.memmap)
        assert codes.mode == "r"
        assert codes.filename == tmp_path / "codes" / files(tmp_path)[0]


def test_other_weights_other_images_and_other_splits_have_codes_of_their_own(tokenizer, splits, tmp_path, encoded):
    weights = {name: tensor * 1.5 for name, tensor in tokenizer.model.state_dict().items()}
    other = Tokenizer(tokenizer.config, weights, tmp_path)
    for encoder in (tokenizer, other):
        for split in ("test", "validation"):
            codes = codes_of(encoder, splits[split], tmp_path)
            assert np.array_equal(codes, encoder.encode(splits[split].batch(range(8))[0]))
    assert len(files(tmp_path)) == 4


def test_until_all_is_encoded_nothing_has_the_name_of_the_codes(tokenizer, splits, tmp_path, monkeypatch):
    encode, seen = Tokenizer.encode, []

    def watching(self, crops):
        seen.append(files(tmp_path))
        return encode(self, crops)

    monkeypatch.setattr(Tokenizer, "encode", watching)
    monkeypatch.setattr(tokens, "PIXELS", 4 * 16 * 16)
    codes_of(tokenizer, splits["test"], tmp_path)
    (name,) = files(tmp_path)
    assert name.startswith(tokenizer.fingerprint)
    assert len(seen) == 2
    assert all(len(names) == 1 and names[0].startswith("unfinished-") for names in seen)


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError])
def test_a_kill_in_the_middle_leaves_no_half_file(tokenizer, splits, tmp_path, monkeypatch, end):
    encode, calls = Tokenizer.encode, []

    def dying(self, crops):
        calls.append(1)
        if len(calls) == 2:
            raise end
        return encode(self, crops)

    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "encode", dying)
        patch.setattr(tokens, "PIXELS", 4 * 16 * 16)
        with pytest.raises(end):
            codes_of(tokenizer, splits["test"], tmp_path)
    assert files(tmp_path) == []
    codes = codes_of(tokenizer, splits["test"], tmp_path)
    assert np.array_equal(codes, tokenizer.encode(splits["test"].batch(range(8))[0]).numpy())


def test_what_a_killed_process_left_behind_is_not_read(tokenizer, splits, tmp_path):
    (tmp_path / "codes").mkdir()
    np.save(tmp_path / "codes" / "unfinished-0.npy", np.zeros((8, 4, 4), np.uint16))
    assert codes_of(tokenizer, splits["test"], tmp_path).any()


def test_what_was_left_behind_long_ago_is_removed(tokenizer, splits, tmp_path):
    (tmp_path / "codes").mkdir()
    old, new = (tmp_path / "codes" / f"unfinished-{name}.npy" for name in ("old", "new"))
    for file in (old, new):
        file.write_bytes(b"")
    os.utime(old, (0, 0))
    codes_of(tokenizer, splits["test"], tmp_path)
    assert not old.exists()
    assert new.exists()


def test_the_file_is_a_plain_array(tokenizer, splits, tmp_path):
    codes_of(tokenizer, splits["test"], tmp_path)
    (file,) = (tmp_path / "codes").iterdir()
    with file.open("rb") as stream:
        assert np.lib.format.read_magic(stream) == (1, 0)
        assert np.lib.format.read_array_header_1_0(stream) == ((8, 4, 4), False, np.uint16)
    assert file.stat().st_size == 128 + 8 * 4 * 4 * 2


def test_a_pickle_in_the_place_of_the_codes_is_not_run(tokenizer, splits, tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "run"),)

    codes_of(tokenizer, splits["test"], tmp_path)
    (file,) = (tmp_path / "codes").iterdir()
    file.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InputError, match="damaged: remove that file"):
        codes_of(tokenizer, splits["test"], tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_cache_that_cannot_be_written_is_told(tokenizer, splits, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as error:
        codes_of(tokenizer, splits["test"], tmp_path / "file")
    reason = "(Not a directory): set VQTOOL_CACHE to another one"
    assert str(error.value) == f"cache folder {str(tmp_path / 'file')!r} cannot be written {reason}"


@pytest.mark.parametrize(("codebook_size", "dtype"), [(1 << 16, np.uint16), ((1 << 16) + 1, np.int32)])
def test_the_largest_code_fits(tokenizer, splits, tmp_path, monkeypatch, codebook_size, dtype):
    monkeypatch.setattr(Tokenizer, "codebook_size", codebook_size)
    monkeypatch.setattr(Tokenizer, "encode", lambda self, crops: torch.full((len(crops), 4, 4), codebook_size - 1))
    codes = codes_of(tokenizer, splits["test"], tmp_path)
    assert codes.dtype == dtype
    assert (as_tensor(codes[:2]) == codebook_size - 1).all()
    assert as_tensor(codes[:2]).dtype == torch.int64


def test_hits_are_the_counts_of_all_codes():
    codes = np.random.default_rng(0).integers(0, 30, (9000, 2, 3)).astype(np.uint16)  # more than one block of images
    codes[codes == 7] = 8
    total = hits(codes, 33)
    assert total.dtype == np.int64
    assert np.array_equal(total, np.bincount(codes.ravel(), minlength=33))
    assert total[7] == total[32] == 0


def test_a_split_counts_the_codes_of_mirrored_crops_too_where_they_take_part(tokenizer, splits, tmp_path):
    images, condition = splits["train"], NoCondition(16)
    plain = CodeSplit(tokenizer, images, condition, tmp_path)
    both = CodeSplit(tokenizer, images, condition, tmp_path, flip=True)
    mirrored = hits(codes_of(tokenizer, images, tmp_path, mirrored=True), 16)
    assert np.array_equal(both.hits(16), plain.hits(16) + mirrored)
    assert plain.hits(16).sum() == 24 * 16
