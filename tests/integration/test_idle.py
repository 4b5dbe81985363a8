"""An idle fleet uses next to no processor time. A limit on resources used, not on speed."""

import time

from api import completion
from processes import cpu_seconds

SETTLE_SECONDS = 10
WINDOW_SECONDS = 10
CORE_SHARE_MAX = 0.01


def test_idle_fleet_uses_under_1_percent_of_a_core(fleet):
    fleet.api.text("/v1/completions", completion("Once", max_tokens=8))
    fleet.wait_quiet()
    names = {process["pid"]: process["name"] for process in fleet.status()["processes"]}
    time.sleep(SETTLE_SECONDS)
    before = {pid: cpu_seconds(pid) for pid in fleet.pids()}
    assert set(names) < set(before)  # The supervisor is in it too.
    started = time.monotonic()
    time.sleep(WINDOW_SECONDS)
    window = time.monotonic() - started
    used = {names.get(pid, "supervisor"): cpu_seconds(pid) - before[pid] for pid in before}
    assert sum(used.values()) / window < CORE_SHARE_MAX, used
