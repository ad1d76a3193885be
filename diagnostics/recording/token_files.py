"""Tokens from a file: the codes that a quantizer gave, without its model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, unknown


def read_tokens(path: Path, key: str | None = None) -> NDArray[np.integer]:
    """The integers of a file; of ``.npy`` a memory map, of the others an array. Nothing in a file is run.

    - ``.npy``: an array. ``.npz``: one of its arrays.
    - ``.pt``, ``.pth``: a tensor, or one of a dict, loaded with ``weights_only=True``.
    - ``.parquet``: a column of integers (N,), or of lists of integers that are all of one length (N, T), or of lists of
      such lists; with several names, ``first,second``, the columns side by side, (N, 2).

    Args:
        path: The file.
        key: Which array, tensor or column of several.

    Raises:
        InputError: The file is not there, of no kind that is read, broken, or holds no such integers.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    read = READERS.get(path.suffix.lower())
    if read is None:
        raise InputError(f"tokens are read from files {', '.join(READERS)}, and {path} is none of these")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    tokens = read(path, key)
    if tokens.dtype.kind not in "iu":
        raise InputError(f"{path} holds {tokens.dtype}: codes are integers")
    if tokens.ndim == 0 or tokens.size == 0:
        raise InputError(f"{path} holds no tokens: its shape is {tokens.shape}")
    return tokens


def _npy(path: Path, key: str | None) -> NDArray[Any]:
    if key is not None:
        raise InputError(f"key {key!r} is for files of several arrays, and {path} holds one", "key")
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise _broken(path, error) from None


def _npz(path: Path, key: str | None) -> NDArray[Any]:
    import zipfile

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[_chosen(path, key, arrays.files)]
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, InputError):
            raise
        raise _broken(path, error) from None


def _torch(path: Path, key: str | None) -> NDArray[Any]:
    import pickle
    import warnings

    import torch

    try:
        with warnings.catch_warnings(action="ignore"):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(
            f"{path} holds something else than tensors: to load it could run code, and it is not loaded"
        ) from None
    except Exception as error:  # a file of any other kind is read as a pickle, where all can go wrong
        raise _broken(path, error) from None
    if isinstance(held, Mapping):
        tensors = {str(name): one for name, one in held.items() if isinstance(one, torch.Tensor)}
        integers = [name for name, one in tensors.items() if not one.is_floating_point()]
        held = tensors[_chosen(path, key, tensors if key is not None else integers)]
    elif key is not None:
        raise InputError(f"key {key!r} is for files of several tensors, and {path} holds none by name", "key")
    if not isinstance(held, torch.Tensor):
        raise InputError(f"{path} holds a {type(held).__name__}: a tensor or a dict of tensors is read")
    return held.float().numpy() if held.is_floating_point() else held.numpy()


def _parquet(path: Path, key: str | None) -> NDArray[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            integers = [field.name for field in file.schema_arrow if _holds_integers(field.type)]
            several = key is not None and key not in names and "," in key
            chosen = [_chosen(path, one, names) for one in key.split(",")] if several and key else []
            chosen = chosen or [_chosen(path, key, names if key is not None else integers)]
            columns = [file.read([name])[name] for name in chosen]
    except (pa.ArrowInvalid, OSError) as error:
        raise _broken(path, error) from None
    arrays = [_column(path, name, column) for name, column in zip(chosen, columns, strict=True)]
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        raise InputError(f"the columns {key} of {path} hold tokens of different shapes")
    return np.stack(arrays, -1) if len(arrays) > 1 else arrays[0]


def _holds_integers(kind: Any) -> bool:
    import pyarrow.types as kinds

    while kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        kind = kind.value_type
    return kinds.is_integer(kind)


def _column(path: Path, name: str, column: Any) -> NDArray[Any]:
    """A column of integers, or of lists of one length, and so on inwards."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.types as kinds

    shape = [len(column)]
    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    while kinds.is_list(values.type) or kinds.is_large_list(values.type) or kinds.is_fixed_size_list(values.type):
        counted = pc.list_value_length(values)  # pyright: ignore[reportAttributeAccessIssue]
        lengths = counted.drop_null().to_numpy(zero_copy_only=False)
        if values.null_count or len(np.unique(lengths)) > 1:
            told = "some are null" if values.null_count else f"they have {lengths.min():,} to {lengths.max():,} values"
            raise InputError(f"the lists in column {name!r} of {path} are not of one length: {told}; pad them with -1")
        shape.append(int(lengths.max(initial=0)))
        values = values.flatten()
    if values.null_count:
        raise InputError(f"column {name!r} of {path} has {values.null_count:,} nulls: what has no code is -1")
    if not (kinds.is_integer(values.type) or kinds.is_floating(values.type)):
        raise InputError(f"column {name!r} of {path} holds {values.type}: codes are integers")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _chosen(path: Path, key: str | None, names: Any) -> str:
    """The one that is meant by its name, or the only one."""
    names = [*names]
    if key is not None:
        if key not in names:
            raise unknown(f"key in {path}:", key, names)
        return key
    if len(names) != 1:
        found = f"several of integers: {', '.join(names)}" if names else "none of integers"
        raise InputError(f"key is missing: {path} holds {found}" if names else f"{path} holds {found}", "key")
    return names[0]


def _broken(path: Path, error: Exception) -> InputError:
    line = (str(error).splitlines() or [""])[0]
    if isinstance(error, KeyError | IndexError | EOFError) or not line:
        line = "it is broken, or of another kind"
    if "pickle" in line or "object" in line:
        line = "what it holds is no plain array of numbers, and Python objects are not loaded"
    return InputError(f"{path} cannot be read as {path.suffix}: {line.rstrip('.')}")


#: How each kind of file is read.
READERS: dict[str, Callable[[Path, str | None], NDArray[Any]]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _torch,
    ".pth": _torch,
    ".parquet": _parquet,
}
