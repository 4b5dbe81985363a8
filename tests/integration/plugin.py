"""Fixtures and the watchdog of all tests that run real processes, here and in tests/conformance/openai."""

import faulthandler
import signal
import sys

import pytest

pytest.register_assert_rewrite("api", "fleet", "models", "processes")

from fleet import BIN_DIR, Fleet  # noqa: E402 (after the registration, which is for it)

PROGRAMS = [
    "switchyard", "switchyard-gateway", "switchyard-router", "switchyard-expert-shard",
    "switchyard-autoscaler",
]


def pytest_addoption(parser):
    parser.addoption("--timeout", type=int, default=120, help="seconds one test may take")


def pytest_sessionstart(session):
    missing = [name for name in PROGRAMS if not (BIN_DIR / name).exists()]
    if missing:
        pytest.exit(f"{BIN_DIR} lacks {', '.join(missing)}: build first, or set SY_BIN_DIR", 1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Ends a test that hangs: first an exception in it, then the end of everything."""
    seconds = item.config.getoption("--timeout")

    def on_alarm(number, frame):
        faulthandler.dump_traceback(file=sys.__stderr__, all_threads=True)
        raise TimeoutError(f"{item.nodeid} took more than {seconds} s")

    signal.signal(signal.SIGALRM, on_alarm)
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(seconds + 90, exit=True, file=sys.__stderr__)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Shows the ends of the logs of all running fleets with a failure."""
    report = yield
    if report.failed:
        for fleet in Fleet.running:
            report.sections.append((f"logs of {fleet.state_dir}", fleet.log_tails()))
    return report


@pytest.fixture(scope="session")
def shared_fleet(tmp_path_factory):
    """Two shards, one router, the demo model; for tests that harm no process."""
    with Fleet(tmp_path_factory.mktemp("shared") / "state") as fleet:
        yield fleet


@pytest.fixture
def fleet(shared_fleet):
    """The shared fleet; afterwards every process of it must still be the first one."""
    yield shared_fleet
    shared_fleet.assert_all_alive()


@pytest.fixture(scope="module")
def module_dir(tmp_path_factory, request):
    return tmp_path_factory.mktemp(request.module.__name__)
