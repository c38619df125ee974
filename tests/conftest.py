"""Commands as a user types them, for every test file: the fixture `say`."""

from __future__ import annotations

import pytest

from consenso import cli


class Said:
    """What a command printed and its exit code, through the same `main` that the console script calls."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


def consenso(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    monkeypatch.setattr("sys.argv", ["consenso", *map(str, arguments)])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    captured = capsys.readouterr()
    return Said(code, captured.out, captured.err)


@pytest.fixture
def say(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: consenso(monkeypatch, capsys, *arguments)
