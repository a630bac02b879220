"""Make the notebooks from their sources in `src/`, run them, and keep their pictures: `python notebooks/build.py`.

A source is a Python file in the percent format: a line `# %%` starts a cell of code, `# %% [markdown]` one of prose.
"""

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import editmgt_lab as lab
from editmgt_lab.basics.fingerprints import weights_fingerprint

FOLDER = Path(__file__).parent
SOURCES = sorted((FOLDER / "src").glob("*.py"))
WIDGET = "application/vnd.jupyter.widget-view+json"


def read_source(path: Path) -> NotebookNode:
    """A source file → a notebook without outputs, with cell ids that stay the same from build to build."""
    notebook = new_notebook(
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, part in enumerate(("\n" + path.read_text(encoding="utf-8")).split("\n# %%")[1:]):
        head, _, body = part.partition("\n")
        if head.strip() == "[markdown]":
            lines = (line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines())
            notebook.cells.append(new_markdown_cell("\n".join(lines), id=f"cell-{number}"))
        else:
            notebook.cells.append(new_code_cell(body.strip(), id=f"cell-{number}"))
    return notebook


def run(notebook: NotebookNode) -> NotebookNode:
    """Execute from top to bottom; raises nbclient's CellExecutionError."""
    resources = {"metadata": {"path": str(FOLDER)}}
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources=resources, store_widget_state=False, record_timing=False
    )
    return client.execute()


def clean(notebook: NotebookNode) -> NotebookNode:
    """Leave what a reader without a kernel can see: no live widgets, only their pictures, and no progress bars; and say
    of which weights the pictures are.
    """
    notebook.metadata.pop("widgets", None)
    notebook.metadata.editmgt_lab = {"weights": weights_fingerprint(lab.load())}
    notebook.metadata.language_info = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_progress(output)]
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET, None)
    return notebook


def _is_progress(output: NotebookNode) -> bool:
    """Whether nothing of it is left without a kernel but words on how far something had come."""
    return output.get("name") == "stderr" or output.get("data", {}).keys() == {WIDGET, "text/plain"}


def main(names: list[str]) -> None:
    for path in SOURCES:
        if not names or path.stem in names:
            print(f"running {path.stem} ...", flush=True)
            nbformat.write(clean(run(read_source(path))), FOLDER / f"{path.stem}.ipynb")


if __name__ == "__main__":
    main(sys.argv[1:])
