"""Every test of the pipeline runs on Daft, and is skipped with a reason where it is not installed."""

import pytest

from editmgt_lab.errors import SettingError


@pytest.fixture(scope="session", autouse=True)
def daft():
    from editmgt_lab.crisp.engine.runner import load_daft, start

    try:
        load_daft()
    except SettingError as error:
        pytest.skip(error.problem)
    start("native")
    return load_daft()
