"""The short form of ``make chaos``: every fault once, and nothing is lost but what was in a killed worker."""

from pathlib import Path

from tests.weather.chaos import FAULTS, run


def test_nothing_is_lost_whatever_happens(repository: Path) -> None:
    weather, code = run(repository, 75)
    told = weather.table() + "\n" + "\n".join(map(str, weather.lost[:5])) + "\n" + weather.log[-3000:]

    assert not weather.lost, told
    assert len(weather.faults) == len(FAULTS), told
    assert sum(answer.status == 200 for answer in weather.answers) > 0.9 * len(weather.answers), told
    assert weather.not_ready < 5, told
    assert code == 0, told
    assert "Traceback" not in weather.log, told
