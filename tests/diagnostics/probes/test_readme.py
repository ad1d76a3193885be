"""The README's table of what is recognised is the probes' own account."""

from pathlib import Path

from vqtool.diagnostics.probes import PROBES, recognised

README = Path(__file__).parents[3] / "README.md"


def test_the_table_of_the_readme_is_the_registry():
    rows = "\n".join(f"| `{name}` | {reads} |" for name, reads in recognised())
    table = f"| convention | what is read |\n|---|---|\n{rows}"
    written = README.read_text().partition("<!-- recognised -->\n")[2].partition("\n<!-- /recognised -->")[0]
    assert written == table, f"write between the markers of README.md:\n{table}"


def test_every_probe_says_what_it_reads():
    assert [name for name, _ in recognised()] == list(PROBES)
    assert all(reads and "\n" not in reads for _, reads in recognised())
