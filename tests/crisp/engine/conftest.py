"""One server of processes for all tests that kill some: it has imported what they run, and what a reader draws once."""

import multiprocessing

import pytest


@pytest.fixture(scope="session")
def server():
    context = multiprocessing.get_context("forkserver")
    modules = ("slow_pipeline", "killed_command")
    context.set_forkserver_preload([f"tests.crisp.engine.{name}" for name in modules])  # before its first process
    return context
