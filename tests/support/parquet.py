"""Data sets as the hub keeps them: parquet files with pictures in them."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(image):
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def column(content):
    """What the hub's Image column holds."""
    return {"bytes": png(content) if isinstance(content, Image.Image) else content, "path": None}


def write(path, schema, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema=pa.schema(schema)), path, **options)
