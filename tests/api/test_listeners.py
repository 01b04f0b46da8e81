"""Sockets that cannot be made are told before anything is started."""

from pathlib import Path

import pytest

from service.api.listeners import check_socket
from service.errors import UsageError


def test_where_a_socket_can_be_made_nothing_is_left(tmp_path: Path) -> None:
    check_socket(tmp_path / "models.socket")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["/proc/self", "/nowhere", "/tmp/" + "deep/" * 30])
def test_where_none_can_be_made_is_told_with_what_to_set(folder: str) -> None:
    with pytest.raises(UsageError, match=r"no socket can be made at .*Set TMPDIR"):
        check_socket(Path(folder) / "models.socket")
