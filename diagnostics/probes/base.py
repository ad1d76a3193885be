"""What a probe is, what it finds in a model, and what is read off one call of a quantizer."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from ..errors import InputError


class NotAQuantizerError(InputError):
    """What looked like a quantizer by its attributes turned out by its first call to be something else.

    Nothing is wrong with the model: the codebook is to be dropped from what is watched, and the message is the reason.
    """


class Call(NamedTuple):
    """One call of a module, or of one of its methods, that has just returned.

    Attributes:
        module: Whose method it was.
        method: Its name, ``forward`` for a call of the module itself.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        output: What it returned.
    """

    module: nn.Module
    method: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any

    @property
    def first(self) -> Any:
        """The first argument, given by position or by its name.

        Raises:
            InputError: There is none.
        """
        if self.args:
            return self.args[0]
        name = next(iter(inspect.signature(getattr(self.module, self.method)).parameters), None)
        if name is not None and name in self.kwargs:
            return self.kwargs[name]
        raise InputError(f"{type(self.module).__name__}.{self.method} was called without its first argument")


class Tap(NamedTuple):
    """A method whose calls are watched.

    Attributes:
        module: Whose method it is.
        method: Its name; ``forward`` stands for the call of the module itself.
    """

    module: nn.Module
    method: str = "forward"


class Live(NamedTuple):
    """A tensor of the user's graph at the boundary of a quantizer, with the way from its layout to tokens.

    Attributes:
        tensor: As it went in or came out, with its graph.
        tokens: From that layout, or a gradient's in it, to (N, D), in the order of the reading's tokens.
    """

    tensor: Tensor
    tokens: Callable[[Tensor], Tensor]


class CodebookReading(NamedTuple):
    """What is read off one call of a quantizer.

    Attributes:
        indices: (N,) int64 code of each token; negative for one that was dropped.
        latents: (N, D) what was quantized, in the space of the codes, detached; NaN where nothing was compared with the
            codes, as where logits chose them.
        codes: (N, D) the assigned codes as the call used them, detached. They are read, not looked up afterwards, for
            some codebooks move within their own forward.
        mask: (N,) bool, False for padding; None where every token counts.
        entering: The latents in the user's graph, where the gradient that leaves to the encoder is read; None where it
            cannot be.
        leaving: The quantized output in the user's graph, straight-through, in the space of the codes, where the
            gradient that comes from the decoder is read; None where it cannot be.
    """

    indices: Tensor
    latents: Tensor
    codes: Tensor
    mask: Tensor | None = None
    entering: Live | None = None
    leaving: Live | None = None

    @property
    def counted(self) -> Tensor:
        """(N,) bool, the tokens that count."""
        return self.indices >= 0 if self.mask is None else (self.indices >= 0) & self.mask

    def kept(self, rows: Tensor) -> Tensor:
        """(N, D) of the tokens with zeros for those that do not count, whatever padding holds."""
        if self.mask is None:
            return rows * (self.indices >= 0).unsqueeze(1)  # far cheaper than a choice
        return rows.where(self.counted.unsqueeze(1), 0)


class WatchedCodebook(ABC):
    """One codebook of a model, and how its convention is read. It keeps nothing of a call longer than the call.

    Attributes:
        module: The quantizer. A call counts where this module is in training mode.
        taps: The calls that ``read`` is shown, each when it returns.
        size: K, the number of codes.
        levels: The number of values of each digit of an implicit codebook, least significant first: an index is
            sum_j digit_j * prod_(i<j) levels_i. None for a codebook of vectors.
    """

    module: nn.Module
    taps: tuple[Tap, ...]
    size: int
    levels: tuple[int, ...] | None = None

    @property
    def fixed(self) -> bool:
        """Whether the codes are meant never to move."""
        return self.levels is not None and not self.parameters()

    @property
    def computed(self) -> bool:
        """Whether ``codes`` computes them anew each time; it is then asked only when a record is due."""
        return False

    @abstractmethod
    def read(self, tap: int, call: Call) -> CodebookReading | None:
        """The reading that the return of ``taps[tap]`` completes; None where it completes none, or does not count.

        Raises:
            NotAQuantizerError: The module is no quantizer after all; only at its first call.
            InputError: What is found is not what the convention promises, in one line that says what to pass instead.
        """

    @abstractmethod
    def codes(self) -> Tensor | None:
        """(K, D) the codes now as the decoder sees them, detached; None where there is no table of them.

        There is none for an implicit codebook of more than 2**16 codes, and none where the codes differ by token.

        To be asked after the first reading only, and it computes nothing that the model keeps.
        """

    def parameters(self) -> list[Tensor]:
        """The tensors by which an optimizer moves the codes; none for codes that move by themselves, or not at all."""
        return []

    def gradient(self) -> Tensor | None:
        """(K, D) gradient of the codes as it stands, None where the codes themselves have none."""
        return None


class Probe(Protocol):
    """Knows one convention of quantizers; one file a convention.

    It looks at ``_parameters``, ``_buffers``, ``_modules``, ``__dict__`` and the type of a module, and never at a
    property: asking a stranger's property may compute, or cache.
    """

    #: What it reads, in a few words, for the list of what is recognised.
    reads: str

    def matches(self, module: nn.Module) -> bool:
        """Whether ``module`` is a quantizer of this convention. What is inside it is then this probe's matter."""
        ...

    def codebooks(self, module: nn.Module) -> dict[str, WatchedCodebook]:
        """The codebooks of ``module`` by the rest of their path, ``""`` for a quantizer with one.

        Raises:
            InputError: It is of this convention, but cannot be read; in one line that says why.
        """
        ...
