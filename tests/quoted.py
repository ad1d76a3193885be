"""What scripts print, compared with what the pages of docs/ say that they print."""

import re

import pytest

NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?![\w.]*[A-Za-z_])")


def words_and_numbers(line):
    """A line without its numbers and its spacing, and its numbers."""
    numbers = [float(number.replace(",", "")) for number in NUMBER.findall(line)]
    return " ".join(NUMBER.sub("#", line).split()), numbers


def assert_printed(printed, quoted):
    """Assert that lines are those of a page, but for a little in their numbers."""
    assert len(printed) == len(quoted)
    for got, expected in zip(printed, quoted, strict=True):
        (words, numbers), (expected_words, expected_numbers) = words_and_numbers(got), words_and_numbers(expected)
        assert words == expected_words
        # Other processors add up in another order, and a training run makes the most of it.
        assert numbers == pytest.approx(expected_numbers, rel=0.15, abs=0.05)
