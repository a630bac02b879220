"""One browser for the tests that drive a page, which are marked; without one they are skipped."""

import pytest

from tests.support.browser import chromium


@pytest.fixture(scope="module")  # not longer: while it is open, this thread has a running event loop
def browser():
    with chromium() as browser:
        yield browser
