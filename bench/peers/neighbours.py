"""How much of the CPUs went to something other than the programs that are measured.

A shared machine makes single figures worthless; this says which of them. What the kernel counts as
busy or stolen, less what our own finished children used, is the neighbours' share.
"""
import atexit
import ctypes
import os
import pathlib
import resource
import signal
import sys
import time

PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
TICKS_PER_SECOND = os.sysconf('SC_CLK_TCK')
GO_FIRST_HELP = 'takes the CPUs before other programs of this machine (root)'
# Of control groups, version 1 and 2: root, how a group's weight is called, the largest one.
CPU_GROUPS = ((pathlib.Path('/sys/fs/cgroup/cpu'), 'cpu.shares', '262144'),
              (pathlib.Path('/sys/fs/cgroup'), 'cpu.weight', '10000'))


def busy_seconds(cpus):
    """Of the CPUs in the list '0,1', since start: all but idle and waiting for disks."""
    wanted = {f'cpu{number}' for number in cpus.split(',')}
    ticks = 0
    with open('/proc/stat', encoding='ascii') as file:
        for line in file:
            name, *fields = line.split()
            if name in wanted:
                user, nice, system, _, _, irq, soft_irq, steal = (int(field) for field in fields[:8])
                ticks += user + nice + system + irq + soft_irq + steal
    return ticks / TICKS_PER_SECOND


def adopt_orphans():
    """Makes daemons that our children leave behind ours when they lose their parent, to be counted."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children_seconds():
    """Of all that have ended, adopted ones too. Not while a child's end is waited for elsewhere."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass  # There are none.
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Watch:
    """Started when made; share() is the neighbours' part of the CPUs' time since then, 0 to 1."""

    def __init__(self, cpus):
        self.cpus = cpus
        self.began = time.monotonic()
        self.busy = busy_seconds(cpus)
        self.children = children_seconds()

    def share(self):
        capacity = (time.monotonic() - self.began) * len(self.cpus.split(','))
        others = (busy_seconds(self.cpus) - self.busy) - (children_seconds() - self.children)
        return min(1.0, max(0.0, others / capacity))


def wait_until_quiet(cpus, share_max, patience_s):
    """Returns whether the neighbours fell to `share_max` for two seconds within the time."""
    deadline = time.monotonic() + patience_s
    while True:
        watch = Watch(cpus)
        time.sleep(2)
        if watch.share() <= share_max:
            return True
        if time.monotonic() > deadline:
            return False


def go_first():
    """Puts this program and all it starts before other programs, by a CPU group of its own (root).

    A plain `nice` would not do: the kernel shares the CPUs among sessions first, and a fleet that is
    started in the background is a session of its own.
    """
    for root, knob, most in CPU_GROUPS:
        if (root / 'cgroup.procs').exists():
            group = root / f'switchyard-bench-{os.getpid()}'
            group.mkdir()
            (group / knob).write_text(most)
            (group / 'cgroup.procs').write_text(str(os.getpid()))
            atexit.register(leave_group, root, group)
            signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
            return
    sys.exit('--first: no control group for CPUs here')


def leave_group(root, group):
    try:
        (root / 'cgroup.procs').write_text(str(os.getpid()))
        group.rmdir()
    except OSError as error:
        print(f'{group} is left behind: {error}', file=sys.stderr)
