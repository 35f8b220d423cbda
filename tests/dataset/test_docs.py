"""What docs/datasets.md says of opening a dataset."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()


def test_files_open_as_the_page_says(invert, source, tmp_path, monkeypatch, capsys):
    for library in ("pandas", "duckdb", "datasets"):
        pytest.importorskip(library)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    invert(source, tmp_path / "noise", condition_column="label", psnr=True)
    monkeypatch.chdir(tmp_path)
    for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(code, "datasets.md", "exec"), {})
    assert "torch.Size([3, 8, 8])" in capsys.readouterr().out
    columns = re.findall(r"^\| `(.*?)` \|", PAGE.split("| column | type | what |")[1].split("\n\n")[0], re.MULTILINE)
    listed = [name for row in columns for name in row.split("`, `")]
    from pyarrow import parquet

    assert set(parquet.read_schema(min((tmp_path / "noise" / "data").iterdir())).names) == {*listed} - {"stored.*"}
