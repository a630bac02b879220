"""Every notebook matches its source, runs from top to bottom in time, and can be read without a kernel."""

import re
import sys
import time

import nbformat
import pytest

from tests.support import PATIENCE, ROOT

NOTEBOOKS = ROOT / "notebooks"
sys.path.insert(0, str(NOTEBOOKS))
import build  # noqa: E402

SHARE = {"00_quickstart": 0.5}  # of the PATIENCE; the others may take all
SOLUTION = re.compile(r"<details><summary>Solution</summary>\n\n```python\n(.*?)```", re.DOTALL)
CHECK = re.compile(r"^# (check_\w+\(.*\))$", re.MULTILINE)
MUST_FAIL = """
try:
    {check}
except Exception:
    pass
else:
    raise AssertionError("{check} passes although nothing is solved")
"""
names = pytest.mark.parametrize("name", [path.stem for path in build.SOURCES])


def source_of(name: str) -> nbformat.NotebookNode:
    return build.read_source(NOTEBOOKS / "src" / f"{name}.py")


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


@names
def test_it_matches_its_source(name):
    def cells(notebook):
        return [(cell.id, cell.cell_type, cell.source) for cell in notebook.cells]

    assert cells(committed(name)) == cells(source_of(name)), "run `make notebooks`"


@names
def test_it_can_be_read_without_a_kernel(name):
    notebook, path = committed(name), NOTEBOOKS / f"{name}.ipynb"
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert path.stat().st_size < 4_500_000
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert not [output for output in outputs if build.WIDGET in output.get("data", {})]
    assert not [output for output in outputs if "0%|" in output.get("data", {}).get("text/plain", "")], "a bar, frozen"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run in order, from the top"
    drawing = [cell for cell in code if re.search(r"^views\.\w+\(", cell.source, re.MULTILINE)]
    assert drawing and all(any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in drawing)


def solved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with every check tried before its exercise is solved, which must fail, and every solution run."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code":
            code = [MUST_FAIL.format(check=check) for check in CHECK.findall(cell.source)]
        else:
            code = SOLUTION.findall(cell.source)
        cells += map(nbformat.v4.new_code_cell, code)
    return nbformat.from_dict({**notebook, "cells": cells})


@names
def test_it_runs_from_top_to_bottom_with_its_exercises_solved(name):
    notebook = source_of(name)
    began = time.perf_counter()
    build.run(solved(notebook))
    assert time.perf_counter() - began < PATIENCE * SHARE.get(name, 1)


@names
def test_every_exercise_has_a_check_and_a_solution(name):
    cells = source_of(name).cells
    code, prose = ("\n".join(c.source for c in cells if c.cell_type == kind) for kind in ("code", "markdown"))
    checks, solutions = CHECK.findall(code), SOLUTION.findall(prose)
    assert len(checks) == len(solutions) == len(re.findall(r"^\*\*\d\. ", prose, re.MULTILINE))
    for check, solution in zip(checks, solutions, strict=True):
        assert check.split("(")[0] in solution, "a solution runs its check"


def test_sources_become_cells(tmp_path):
    path = tmp_path / "demo.py"
    path.write_text('# %% [markdown]\n# # Title\n#\n# - item\n#     - nested\n\n# %%\nx = 1\n\n\ny = "# %%"\n# %%\nx\n')
    notebook = build.read_source(path)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        ("markdown", "# Title\n\n- item\n    - nested"),
        ("code", 'x = 1\n\n\ny = "# %%"'),
        ("code", "x"),
    ]
    nbformat.validate(notebook)


def test_cleaning_leaves_the_static_picture():
    notebook = build.read_source(build.SOURCES[0])
    notebook.metadata.widgets = {}
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="50%|"),
        nbformat.v4.new_output("execute_result", data={build.WIDGET: {}, "image/png": "abc"}, execution_count=1),
    ]
    build.clean(notebook)
    assert "widgets" not in notebook.metadata
    assert [dict(output.data) for output in cell.outputs] == [{"image/png": "abc"}]
