"""Trackers: told figures as they come, by import path or as TensorBoard's files."""

import pytest
from results import made_result
from written_run import written_run

from jaxnas.commands import status
from jaxnas.errors import UsageError
from jaxnas.report.tracking import figures_of, on_candidate, tracked
from jaxnas.storage.run_folder import existing_run


def test_a_function_is_told_each_candidate_and_phase(told):
    result = made_result(3, accuracy=0.25)
    with tracked("my_tracker:log", None) as tracker:
        on_candidate(tracker)(result)
        tracker("training", 500, {"loss": 1.5})
    assert told[0] == ("candidate", 3, figures_of(result))
    assert told[0][2]["accuracy"] == 0.25
    assert told[1] == ("training", 500, {"loss": 1.5})


def test_a_tracker_that_fails_ends_nothing(told, capsys):
    with tracked("my_tracker:fails, my_tracker:log", None) as tracker:
        tracker("training", 1, {"loss": 1.0})
        tracker("training", 2, {"loss": 0.5})
    assert [step for _, step, _ in told] == [1, 2]
    assert capsys.readouterr().err.count("my_tracker:fails failed") == 1


def test_without_one_nobody_is_called():
    with tracked(None, None) as tracker:
        assert tracker is None
        assert on_candidate(tracker) is None


@pytest.mark.parametrize("path", ["my_tracker", "no_such_module:log", "json:nothing"])
def test_what_cannot_be_imported_is_said_in_a_line(path):
    with pytest.raises(UsageError, match="tracker: "), tracked(path, None):
        pass


def test_event_files_hold_the_figures(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    with tracked(None, tmp_path) as tracker:
        on_candidate(tracker)(made_result(0, accuracy=0.5))
        tracker("phase fast", 1, {"accuracy": 0.75})
    (file,) = (tmp_path / "candidate").iterdir()
    read, found, raw = Event(), {}, file.read_bytes()
    while raw:  # records of a length, its check, the event, its check
        length = int.from_bytes(raw[:8], "little")
        read.ParseFromString(raw[12 : 12 + length])
        for value in read.summary.value:
            found[value.tag] = (read.step, value.simple_value)
        raw = raw[16 + length :]
    assert found["accuracy"] == (0, 0.5)
    assert (tmp_path / "phase-fast").is_dir()


def test_a_run_goes_on_beside_event_files(tmp_path, capsys):
    run = written_run(tmp_path / "run")
    run.tensorboard.mkdir()
    with existing_run(run.path):
        pass
    status.main([str(run.path)])
    assert "24 (24 ok)" in capsys.readouterr().out
