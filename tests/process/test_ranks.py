"""What the environment says of processes is checked, and a lone rank means nothing."""

import pytest

from rtil.process.device import check_restarts, ranks


def environment(monkeypatch, **values):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("values", [{}, {"RANK": "1"}, {"RANK": "3", "WORLD_SIZE": "1"}])
def test_a_rank_without_others_is_the_only_process(monkeypatch, values):
    environment(monkeypatch, **values)
    assert ranks() == (0, 1, 0)


def test_ranks_of_torchrun_are_taken(monkeypatch):
    environment(monkeypatch, RANK="3", WORLD_SIZE="4", LOCAL_RANK="1")
    assert ranks() == (3, 4, 1)


@pytest.mark.parametrize(("values", "named"), [
    ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2 .* not below WORLD_SIZE=2"),
    ({"WORLD_SIZE": "two"}, "WORLD_SIZE=two"),
    ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1"),
])  # fmt: skip
def test_what_cannot_be_is_refused_by_name(monkeypatch, values, named):
    environment(monkeypatch, **values)
    with pytest.raises(ValueError, match=named):
        ranks()


def test_restarts_over_several_machines_need_a_store_of_each_start(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    monkeypatch.setenv("GROUP_WORLD_SIZE", "2")
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "0")
    check_restarts()
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "3")
    with pytest.raises(ValueError, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        check_restarts()
    monkeypatch.setenv("GROUP_WORLD_SIZE", "1")
    check_restarts()
