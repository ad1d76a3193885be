"""The page of one run."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...diagnostics import stats
from ...diagnostics.errors import InputError
from ...diagnostics.recording.trace import CodebookTrace
from ...diagnostics.run import RunDirectory
from ..page import images, logged
from ..page.facts import RunFacts, number
from ..page.run_sections import (
    circumstances,
    findings,
    looked_at,
    newest_picture,
    not_measured,
    numbers,
    single_look,
    single_points,
)
from ..page.sections import Card, Panel, Section, Table, hang, write_page
from ..page.tables import plus_minus
from ..page.words import counted
from . import curves
from .ladder import ladder_sections
from .overview import cards, overview, uses
from .section import codebook_section
from .standing import standing

#: More codebooks than this are folded away, each under its own heading: eight layers are a hundred figures.
MOST_OPEN = 2


def write_run_page(fact: RunFacts, folder: Path, progress: Callable[[str], None]) -> Path:
    """Write the report of one run into ``folder`` and return the page."""
    short = verdict(fact)
    short.missing += not_measured([fact])
    if len(found := [*uses(fact.run)]) > 1:
        short.tables.append(overview([("", one) for one in found], folder))
    if not fact.run.has_config:
        short.text.append("vqtool did not train this model: its losses, samples and settings are not in this folder.")
    sections = [short, *findings(fact)]
    if fact.run.has_config:
        progress(f"{fact.name}: losses and samples")
        sections.append(_training(fact, folder))
    if not fact.run.codebook_names():
        sections.append(Section("Codebooks", missing=["No codebook trace yet: no record of any codebook was written."]))
    sections += ladder_sections(fact.run, {one.codebook: one.usage for one in found}, folder)
    sections += _codebooks(fact, folder, progress)
    if fact.run.has_config:
        sections += [numbers(fact, folder), *circumstances(fact)]
    progress(f"{fact.name}: page")
    return write_page(folder, f"Run {fact.name}", f"{fact.model}, {fact.status}", sections)


def _codebooks(fact: RunFacts, folder: Path, progress: Callable[[str], None]) -> Iterator[Section]:
    names = fact.run.codebook_names()
    for codebook in names:
        progress(f"{fact.name}: codebook {codebook}")
        section = codebook_section(fact.run, codebook, folder)
        section.folded = len(names) > MOST_OPEN
        if len(names) > 1:
            section.text[:0] = _told(fact.run, codebook)
        yield section


def verdict(fact: RunFacts) -> Section:
    """How far the run is, how its codebook stands where it is one, and the numbers in large.

    Several codebooks have their sentences in their own sections.
    """
    section = Section("In short", text=[f"The run is {fact.status}."])
    if len(names := fact.run.codebook_names()) == 1:
        section.text += _told(fact.run, names[0])
    (_add_evaluation if fact.run.has_config else _add_use)(section, fact)
    return section


def _add_use(section: Section, fact: RunFacts) -> None:
    """Of a model that vqtool did not train, what the instrument saw is all there is."""
    if len(found := [*uses(fact.run)]) == 1:
        section.cards += cards(found[0].usage)


def _add_evaluation(section: Section, fact: RunFacts) -> None:
    """The evaluation of the test split, or of whichever was evaluated."""
    splits = fact.splits()
    if "test" not in splits:
        section.missing.append("The test split was not evaluated: no evaluation-test.json.")
    for split in splits[:1]:
        evaluation = fact.evaluation(split)
        over = f"whole {split} split, step {evaluation.get('step', '?')}, {_of(evaluation, 'tokens'):,.0f} tokens"
        images = f"whole {split} split, {evaluation.get('images', '?')} images"
        section.cards += [
            _usage_card(evaluation, fact, over),
            _perplexity_card(evaluation, over),
            Card(f"{plus_minus(_of(evaluation, 'psnr'), decimals=2)} dB", "PSNR", images),
        ]


def _of(evaluation: Mapping[str, Any], key: str) -> float:
    return number(evaluation.get(key))


def _usage_card(evaluation: Mapping[str, Any], fact: RunFacts, over: str) -> Card:
    """Usage of its ceiling, with coverage and codes in use where the evaluation, which may be older, has them."""
    size = number(evaluation.get("codebook_size", fact.setting("quantizer.codebook_size")))
    used, tokens = _of(evaluation, "codes_used_split"), _of(evaluation, "tokens")
    told = [f"{plus_minus(used, decimals=1)} of {plus_minus(size, decimals=0)} codes used"]
    if not math.isnan(coverage := _of(evaluation, "coverage_split")):
        told.append(f"coverage {stats.percent(coverage)}")
    if not math.isnan(low := _of(evaluation, "codes_in_use_low_split")):
        told.append(f"at least {low:,.0f} in use (95 % over images)")
    if math.isnan(used + tokens + size):
        return Card("–", "; ".join(told), over)
    return Card(stats.Usage(int(size), int(tokens), over, used).of_ceiling, "; ".join(told), over)


def _perplexity_card(evaluation: Mapping[str, Any], over: str) -> Card:
    told = ["perplexity, in codes"]
    if not math.isnan(corrected := _of(evaluation, "perplexity_corrected_split")):
        told.append(f"{corrected:,.1f} corrected for few tokens")
    low, high = _of(evaluation, "perplexity_low_split"), _of(evaluation, "perplexity_high_split")
    if not math.isnan(low + high):
        told.append(f"95 % over images: {low:,.1f} to {high:,.1f}")
    return Card(plus_minus(_of(evaluation, "perplexity_split"), decimals=1), "; ".join(told), over)


def _told(run: RunDirectory, codebook: str) -> list[str]:
    """How a codebook stands, in one sentence."""
    try:
        return [str(standing(CodebookTrace.load(run.trace / codebook, columns=())))]
    except InputError:  # what is wrong with it stands where its figures would
        return []


def _training(fact: RunFacts, folder: Path) -> Section:
    section, sample = Section("Training"), newest_picture(fact.run.samples, "reconstructions")
    if not curves.logged_losses(fact.metrics):
        section.missing.append("No losses yet: metrics.jsonl holds none.")
    if not curves.validated(fact.metrics):
        section.missing.append("No validation figures yet: metrics.jsonl holds none.")
    if sample is None:
        section.missing.append("No reconstructions yet: samples/ holds none.")
    section.pictures = hang(_training_panels(fact, sample), folder)
    section.tables = list(_training_tables(fact, folder))
    return section


def _training_panels(fact: RunFacts, sample: tuple[int, np.ndarray] | None) -> Iterator[Panel]:
    rows = fact.metrics
    if logged.points(rows, curves.logged_losses(rows)) > 1:
        points = sum(any(key.startswith("loss/") for key in row) for row in rows)
        caption = (
            f"Logged losses at {counted(points, 'step')} up to step {fact.last_step:,}: faint, as logged, each over one"
            " batch; strong, a centred running mean over a fiftieth of them."
        )
        yield Panel("losses", "Losses", caption, curves.losses(rows))
    if (looks := logged.points(rows, curves.validated(rows))) > 1:
        over = looked_at(rows)
        caption = (
            f"{counted(looks, 'look')} at the validation split"
            + (f", at {counted(over, 'image')} of it each" if over else "")
            + ": no figure per window compares with these."
        )
        yield Panel("validation", "Validation", caption, curves.validation(rows))
    if sample:
        step, image = sample
        caption = f"The same images at step {step:,}: originals in the upper row, reconstructions beneath them."
        yield Panel("reconstructions", "Reconstructions", caption, images.photo_rows(image), wide=True, photos=True)


def _training_tables(fact: RunFacts, folder: Path) -> Iterator[Table]:
    """What was logged once only."""
    rows, losses, figures = fact.metrics, curves.logged_losses(fact.metrics), curves.validated(fact.metrics)
    if logged.points(rows, losses) == 1:
        names = {name: (name, curves.unit(name)) for name in losses}
        yield single_points(rows, names, "Losses over one batch", "losses", folder)
    if logged.points(rows, figures) == 1:
        told = {name: curves.quantity(name) + curves.of_ceiling(rows, name) for name in figures}
        names = {name: (told[name], curves.unit(name)) for name in figures}
        yield single_look(rows, names, folder)
