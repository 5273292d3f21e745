"""What a stick's document partition tells people is true."""

from __future__ import annotations

from pathlib import Path

import pytest

from thimble.cli.main import run
from thimble.document.read import read
from thimble.image import disk


def commented_in(text: str) -> str:
    """The example with its examples switched on."""
    lines = (
        line.removeprefix("#") if line.startswith("#") and line[1:2].strip() else line
        for line in text.splitlines()
    )
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("text", [disk.EXAMPLE, commented_in(disk.EXAMPLE)])
def test_the_example_on_the_stick_is_a_document(text: str) -> None:
    assert read(text).document.host.name == "thimble"


def test_a_stick_gets_no_document_with_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thimble.img").write_bytes(bytes(4096))
    document = tmp_path / "thimble.toml"
    document.write_text('format = 1\n[host]\nnmae = "x"\n')
    words = ["image", "write", str(tmp_path / "stick"), "--image", str(tmp_path), "--document", str(document)]
    assert run(words) == 2
    assert "nmae" in capsys.readouterr().err
    assert not (tmp_path / "stick").exists()
