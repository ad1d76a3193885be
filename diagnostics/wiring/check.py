"""What a check is. Checks judge what the experiments saw; none of them needs torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple

from ..findings import Finding, Severity
from .evidence import Seen, Trial


class CannotJudge(Exception):  # noqa: N818 (it is an answer, no error)
    """Why a check has nothing to judge by; the check is skipped and named, with this text."""


class Skipped(NamedTuple):
    """A check that could not judge.

    Attributes:
        check: Its name.
        codebook: Of which codebook; None for the model as a whole.
        why: In a few words.
    """

    check: str
    codebook: str | None
    why: str


class Check(ABC):
    """One question about how a model is wired.

    Attributes:
        name: What it is called, in findings and by ``vqtool explain``.
        question: What it asks, in one sentence.
        measures: How it finds out, with its threshold.
        matters: Why it matters, and what it looks like in training.
        advice: What to do about it.
        source: The issues and papers that it comes from.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    measures: ClassVar[str]
    matters: ClassVar[str]
    advice: ClassVar[str]
    source: ClassVar[str]

    @abstractmethod
    def look(self, trial: Trial) -> Iterator[Finding | Skipped]:
        """What it finds, and where it could not judge."""

    def found(
        self, statement: str, seen: Seen | None = None, severity: Severity = "problem", **evidence: Any
    ) -> Finding:
        """A finding of this check; of a codebook its evidence says where to look."""
        where = {} if seen is None else seen.where
        name = None if seen is None else seen.name
        return Finding(self.name, severity, statement, name, where | evidence, self.advice, self.source)


class CodebookCheck(Check):
    """A check that looks at one codebook at a time."""

    def look(self, trial: Trial) -> Iterator[Finding | Skipped]:
        for seen in trial.seen.values():
            try:
                yield from self.look_at(seen)
            except CannotJudge as why:
                yield Skipped(self.name, seen.name, str(why))

    @abstractmethod
    def look_at(self, seen: Seen) -> Iterator[Finding]:
        """What it finds of one codebook.

        Raises:
            CannotJudge: There is nothing to judge by.
        """


def called(seen: Seen) -> None:
    """Go on only with a codebook that was called while it trained.

    Raises:
        CannotJudge: It was not.
    """
    if not seen.asked:
        raise CannotJudge("no batch was given")
    if not seen.steps:
        raise CannotJudge("it was not called in training mode")
