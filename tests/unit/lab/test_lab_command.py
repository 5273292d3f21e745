"""The door `python -m thimble.lab`: images, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from thimble.core.problem import Problem
from thimble.lab.command import APPEND, main, spec_of_image
from thimble.lab.spec import LabFirmware, LabMedium


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    for name in ("vmlinuz", "initrd", "thimble.efi", "thimble.img", "thimble.iso"):
        (tmp_path / name).touch()
    return tmp_path


def test_an_image_is_booted_with_the_words_it_was_built_with(image: Path) -> None:
    assert spec_of_image(image).append == APPEND
    (image / "manifest.json").write_text(json.dumps({"command_line": "quiet x"}))
    assert spec_of_image(image, append="y=1").append == "quiet x y=1"


def test_uefi_boots_the_one_file(image: Path) -> None:
    assert spec_of_image(image, firmware=LabFirmware.UEFI).efi == str(image / "thimble.efi")


def test_a_medium_is_the_first_disk_and_the_image_itself_is_not_written_to(image: Path) -> None:
    stick = spec_of_image(image, medium=LabMedium.IMG).disks[0]
    assert (stick.file, stick.keep, stick.order) == (str(image / "thimble.img"), True, 1)
    disc = spec_of_image(image, medium=LabMedium.ISO, firmware=LabFirmware.BIOS).disks[0]
    assert (disc.file, disc.cd, disc.read_only) == (str(image / "thimble.iso"), True, True)
    assert spec_of_image(image, medium=LabMedium.NONE, firmware=LabFirmware.BIOS).disks == ()


def test_firmware_and_medium_follow_from_each_other(image: Path) -> None:
    assert spec_of_image(image, medium=LabMedium.ISO).firmware is LabFirmware.UEFI
    assert spec_of_image(image, firmware=LabFirmware.BIOS).disks[0].file.endswith("thimble.img")
    with pytest.raises(Problem, match="cannot boot"):
        spec_of_image(image, medium=LabMedium.EFI, firmware=LabFirmware.BIOS)


def test_a_missing_image_says_how_to_build_one(tmp_path: Path) -> None:
    with pytest.raises(Problem) as caught:
        spec_of_image(tmp_path)
    assert "image build" in caught.value.hint


def test_an_empty_lab_lists_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_problems_become_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["down", "nobody"]) == 5
    assert main(["console", "nobody"]) == 5
    assert main(["up", "--image", str(tmp_path)]) == 5
    assert main(["up", "--disk", "many", "--image", str(tmp_path)]) == 2
    assert "Traceback" not in capsys.readouterr().err
