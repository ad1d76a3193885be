"""The page of a folder with runs of the second stage, and with those of the first that they rest on."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ...diagnostics.run import RunDirectory
from ..codebook.run_page import verdict, write_run_page
from ..page import logged
from ..page.facts import RunFacts
from ..page.run_sections import not_measured
from ..page.sections import Panel, Section, hang, lay_cells, write_page
from ..transformer.run_page import codes_of_splits, in_short, write_transformer_page
from . import curves
from .quantizers_page import ablation_sections
from .transformer_table import group_by_settings, name_below, table_for_people, transformer_table

Progress = Callable[[str], None]


def write_stages_page(runs: list[RunDirectory], folder: Path, progress: Progress) -> Path:
    """Write the page that leads to all ``runs`` into ``folder``, and the page of every run of a transformer.

    Several first stages are compared among themselves; a single one gets a page of its own.
    """
    facts = [RunFacts(run) for run in runs]
    first = [fact for fact in facts if not fact.is_transformer]
    second = [fact for fact in facts if fact.is_transformer]
    above = folder.resolve().parent
    sections = [_second_stages(second, folder)]
    if len(first) == 1:
        sections.append(_first_stage(first[0], folder, progress))
    sections += [_second_stage(fact, folder, progress) for fact in second]
    if len(first) > 1:
        compared = ablation_sections([fact.run for fact in first], folder, progress)
        sections += [replace(section, title=f"First stages: {section.title}") for section in compared]
    subtitle = f"first stages: {len(first)}, transformers: {len(second)}"
    return write_page(folder, f"Runs in {above.name}", subtitle, sections)


def _second_stages(facts: list[RunFacts], folder: Path) -> Section:
    above = folder.resolve().parent
    groups = group_by_settings(facts, above)
    frame = transformer_table(groups, above)
    section = Section("Transformers", missing=not_measured(facts))
    section.tables.append(lay_cells(frame, *table_for_people(frame), "Transformers", "transformers", folder))
    losses = {name: [logged.series(fact.metrics, "validation/nll") for fact in group] for name, group in groups.items()}
    if drawn := {name: [one for one in some if len(one)] for name, some in losses.items() if any(map(len, some))}:
        caption = "Validation NLL over the training. " + curves.seeds_caption(drawn)
        figure = curves.loss_by_name(drawn, "validation NLL (nats per token)")
        section.pictures = hang([Panel("transformers-nll", "Validation NLL", caption, figure, wide=True)], folder)
    else:
        section.missing.append("No validation figures yet: no run has logged validation/nll.")
    return section


def _first_stage(fact: RunFacts, folder: Path, progress: Progress) -> Section:
    section = verdict(fact)
    section.title = f"First stage: {name_below(fact.run.path, folder.parent)}"
    section.missing += not_measured([fact])
    section.text.insert(0, f"{fact.model[:1].upper()}{fact.model[1:]}.")
    return _linked(section, write_run_page(fact, _report(fact), progress), folder)


def _second_stage(fact: RunFacts, folder: Path, progress: Progress) -> Section:
    section = in_short(fact, codes_of_splits(fact)[0])
    section.title = f"Transformer: {name_below(fact.run.path, folder.parent)}"
    return _linked(section, write_transformer_page(fact, _report(fact), progress), folder)


def _report(fact: RunFacts) -> Path:
    fact.run.report.mkdir(exist_ok=True)
    return fact.run.report


def _linked(section: Section, page: Path, folder: Path) -> Section:
    section.links["The page of this run"] = Path(os.path.relpath(page, folder)).as_posix()
    return section
