"""The page of one run."""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.image import imread

from ..diagnostics.errors import InputError
from . import curves, heatmaps
from .codebook_panels import codebook_panels
from .facts import RunFacts, number
from .page import Card, Panel, Section, hang, lay, write_page
from .tables import final_numbers, plus_minus


def write_run_page(fact: RunFacts, folder: Path, progress: Callable[[str], None]) -> Path:
    """Write the report of one run into ``folder`` and return the page."""
    progress(f"{fact.name}: losses and samples")
    sections = [verdict(fact), findings(fact), _training(fact, folder)]
    if not fact.run.codebooks():
        sections.append(Section("Codebooks", missing=["No codebook trace yet: no record of any codebook was written."]))
    for codebook in fact.run.codebooks():
        progress(f"{fact.name}: codebook {codebook.name}")
        sections.append(_codebook(codebook, folder))
    sections += [numbers(fact, folder), *circumstances(fact)]
    progress(f"{fact.name}: page")
    size = fact.setting("quantizer.codebook_size", "unknown size")
    subtitle = f"quantizer {fact.quantizer}, {size} codes, data {fact.setting('data.spec', 'unknown')}, {fact.status}"
    return write_page(folder, f"Run {fact.name}", subtitle, sections)


def verdict(fact: RunFacts) -> Section:
    """The numbers of the evaluation first: of the test split, or of whichever was evaluated."""
    section = Section("In short", text=[f"The run is {fact.status}."])
    splits = fact.splits()
    if "test" not in splits:
        section.missing.append("The test split was not evaluated: no evaluation-test.json.")
    for split in splits[:1]:
        evaluation = fact.evaluation(split)
        tokens = number(evaluation.get("tokens"))
        over = f"whole {split} split, step {evaluation.get('step', '?')}, {tokens:,.0f} tokens"
        size = evaluation.get("codebook_size", fact.setting("quantizer.codebook_size", "?"))
        used = number(evaluation.get("codes_used_split"))
        all_codes = plus_minus(number(size), decimals=0)
        share = f" ({used / number(size):.1%})" if number(size) and not math.isnan(used) else ""
        images = f"whole {split} split, {evaluation.get('images', '?')} images"
        section.cards += [
            Card(f"{plus_minus(used, decimals=1)} of {all_codes}", f"codes used{share}", over),
            Card(plus_minus(number(evaluation.get("perplexity_split")), decimals=1), "perplexity, in codes", over),
            Card(f"{plus_minus(number(evaluation.get('psnr')), decimals=2)} dB", "PSNR", images),
        ]
        section.missing += not_measured(split, evaluation)
    return section


def not_measured(split: str, evaluation: dict[str, Any]) -> list[str]:
    """One line on what an evaluation could not measure, and why; none where it measured everything."""
    reasons = "; ".join(f"{key} ({reason})" for key, reason in (evaluation.get("missing") or {}).items())
    return [f"Not measured on the {split} split: {reasons}."] if reasons else []


def findings(fact: RunFacts) -> Section:
    """What the checks found, the most severe first."""
    if not fact.run.findings.exists():
        return Section("Findings", missing=["The run was not diagnosed yet: no findings.jsonl."])
    found = fact.findings()
    return Section("Findings", findings=found, text=[] if found else ["The checks found nothing to report."])


def _training(fact: RunFacts, folder: Path) -> Section:
    section, sample = Section("Training"), newest_picture(fact.run.samples, "reconstructions")
    if not any(curves.keys(fact.metrics, prefix) for prefix in curves.LOSS_GROUPS):
        section.missing.append("No losses yet: metrics.jsonl holds none.")
    if not curves.keys(fact.metrics, "validation/"):
        section.missing.append("No validation figures yet: metrics.jsonl holds none.")
    if sample is None:
        section.missing.append("No reconstructions yet: samples/ holds none.")
    section.pictures = hang(_training_panels(fact, sample), folder)
    return section


def _training_panels(fact: RunFacts, sample: tuple[int, np.ndarray] | None) -> Iterator[Panel]:
    rows = fact.metrics
    if any(curves.keys(rows, prefix) for prefix in curves.LOSS_GROUPS):
        points = sum(any(key.startswith("loss/") for key in row) for row in rows)
        caption = (
            f"Logged losses at {points:,} steps up to step {fact.last_step:,}: faint, as logged, each over one batch;"
            " strong, a centred running mean over a fiftieth of them."
        )
        yield Panel("losses", "Losses", caption, curves.losses(rows))
    if names := curves.keys(rows, "validation/"):
        points = len(curves.series(rows, names[0]))
        over = max(curves.series(rows, "validation/images"), default=0)
        caption = (
            f"{points:,} looks at the validation split"
            + (f", at {over:,.0f} images of it each" if over else "")
            + ": no figure per window compares with these."
        )
        yield Panel("validation", "Validation", caption, curves.validation(rows))
    if sample:
        step, image = sample
        caption = f"The same images at step {step:,}: originals in the upper row, reconstructions beneath them."
        yield Panel(
            "reconstructions", "Reconstructions", caption, heatmaps.reconstructions(image), wide=True, photos=True
        )


def newest_picture(folder: Path, name: str) -> tuple[int, np.ndarray] | None:
    """Step and image of the newest ``<name>-<step>.png`` that is whole, or None.

    One that was drawn later, ``<name>-<step>-<how>.png``, counts where the run itself left none at that step.
    """
    pattern = re.compile(rf"{name}-(\d+)(-.*)?\.png")
    paths = sorted(folder.glob("*.png"))  # of a step the run's own comes last: "-" before "."
    found = {int(match[1]): path for path in paths if (match := pattern.fullmatch(path.name))}
    for step in sorted(found, reverse=True):
        with suppress(OSError, SyntaxError):  # how a PNG that is cut short fails
            return step, imread(found[step])
    return None


def _codebook(codebook: Path, folder: Path) -> Section:
    section = Section(f"Codebook {codebook.name}")
    try:
        section.pictures = hang(codebook_panels(codebook), folder)
    except InputError as error:  # one broken trace must not hide the rest of the run
        section.missing.append(f"Not shown: {error}.")
    return section


def numbers(fact: RunFacts, folder: Path) -> Section:
    """The last value of every figure of a run."""
    frame = final_numbers(fact)
    if frame.empty:
        return Section("Last numbers", missing=["No numbers yet: nothing logged, nothing evaluated."])
    return Section("Last numbers", tables=[lay(frame, "The last value of every figure", "final-numbers", folder)])


def circumstances(fact: RunFacts) -> list[Section]:
    """Config and environment, word by word."""
    config = Section("Config", verbatim=fact.run.config.read_text(encoding="utf-8"))
    environment = Section("Environment")
    if fact.environment:
        environment.verbatim = json.dumps(fact.environment, indent=2, ensure_ascii=False)
    else:
        environment.missing.append("Not recorded: no environment.json.")
    return [config, environment]
