"""What a folder says of the run in it, and files that are there whole or not at all."""

import pytest

from vqtool.diagnostics import InputError, RunDirectory, find_runs
from vqtool.diagnostics.files import replacing, write_atomically


def a_run(folder, config="train: {steps: 4}\n"):
    folder.mkdir()
    (folder / "config.yaml").write_text(config)
    return RunDirectory(folder)


def test_a_run_of_before_there_were_two_stages_is_of_the_first(tmp_path):
    assert a_run(tmp_path / "old").stage == "vqgan"
    assert a_run(tmp_path / "new", "stage: transformer\n").stage == "transformer"
    with pytest.raises(InputError, match="stage 'transfomer' is unknown; did you mean 'transformer'"):
        _ = a_run(tmp_path / "odd", "stage: transfomer\n").stage


def test_a_folder_without_a_config_is_no_run(tmp_path):
    run = RunDirectory(tmp_path)
    assert not run.is_run
    for ask in (run.read_config, lambda: run.stage, lambda: find_runs(tmp_path)):
        with pytest.raises(InputError, match=r"config\.yaml"):
            ask()


def test_a_run_is_finished_when_it_says_so(tmp_path):
    run = a_run(tmp_path / "run")
    assert run.is_run
    assert not run.is_finished
    run.write_json(run.done, {"steps": 4})
    assert run.is_finished


def test_checkpoints_have_one_place(tmp_path):
    run = a_run(tmp_path / "run")
    assert run.last_checkpoint == run.checkpoint("last") == tmp_path / "run" / "checkpoints" / "last.ckpt"
    names = {run.last_checkpoint, run.best_checkpoint, run.failed_checkpoint, run.first_stage_copy}
    assert len(names | {run.condition_stage_copy}) == 5


def test_a_file_is_replaced_when_the_block_has_ended_and_not_before(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def interrupted():
        with replacing(path) as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
