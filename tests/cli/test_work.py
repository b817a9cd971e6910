from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from kompakt.cli.work import working


def test_what_libraries_print_and_warn_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with working([]):
        print("loading weights")  # noqa: T201
        warnings.warn("layer [/] is\n\x1b[31m odd", UserWarning, stacklevel=1)
        warnings.warn("will change", FutureWarning, stacklevel=1)
    print("done")  # noqa: T201
    shown = capsys.readouterr()
    assert shown.out == "done\n"
    assert shown.err.startswith("loading weights\n  warning: layer [/] is ")
    assert "\x1b[31m" not in shown.err
    assert "will change" not in shown.err


@pytest.mark.parametrize(
    ("names", "importable"),
    [
        (["my.module:function"], True),
        ([None, "photos/", "my.data:batches?split=test"], True),
        (["spearman@my.metric:pairs"], True),
        (["photos/", "top1", "builtin:digits", None], False),
    ],
)
def test_the_current_folder_is_importable_only_for_named_functions(
    names: list[str | None], importable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with working(names, quiet=True):
        assert (str(tmp_path) in sys.path) == importable
    assert str(tmp_path) not in sys.path
