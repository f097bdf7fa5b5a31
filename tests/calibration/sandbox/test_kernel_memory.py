"""The kernel's memory that no limit of a process counts: a completion gets none of it, or a bounded part."""

from __future__ import annotations

import platform
import struct
import time
from dataclasses import replace

import pytest

from calibration.sandbox import bubblewrap, seccomp
from calibration.sandbox.bubblewrap import Bubblewrap, find_bubblewrap
from calibration.sandbox.program import Judgement, Program

PREAMBLE = """
import ctypes, fcntl, mmap, os, select, signal, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def make(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)
def made(number, *arguments):
    make('syscall', number, *arguments)
"""
MACHINE = list(seccomp._ARCHITECTURES).index(platform.machine()) if platform.machine() in seccomp._ARCHITECTURES else 0
# Each makes one object of a kind that can be made without end, or that is larger than what is counted of it.
HOARDS = {
    "message queue": "make('msgget', 0, 0o1600)",
    "POSIX message queue": "make('mq_open', b'/x', os.O_CREAT | os.O_RDWR, 0o600, None)",
    "semaphores": "make('semget', 0, 250, 0o1600)",
    "shared memory segment": "make('shmget', 0, 2**20, 0o1600)",
    "memory file": "os.memfd_create('x')",
    "shared memory, of which one page stays mapped": "mmap.mmap(-1, 2**20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)",
    "huge pages, of which one page stays mapped": "mmap.mmap(-1, 2**22, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)"
    ".madvise(14)",
    "pipe": "os.pipe()",
    "larger pipe": "for n in range(3, 32):\n"
    "    try: fcntl.fcntl(n, 1031, 2**16)\n"
    "    except OSError as error:\n"
    "        if error.errno == 1: raise",
    "locks of a file": "with open(os.__file__) as file: fcntl.lockf(file, fcntl.LOCK_SH, 1, 0)",
    "lock of a whole file": "with open(os.__file__) as file: fcntl.flock(file, fcntl.LOCK_SH)",
    "lease": "with open(os.__file__) as file: fcntl.fcntl(file, 1026, 1)",  # on a folder: F_NOTIFY
    "socket": "socket.socket(socket.AF_UNIX)",
    "sockets of a pair": "socket.socketpair()",
    "epoll": "select.epoll()",
    "inotify": "make('inotify_init1', 0)",
    "fanotify": "make('fanotify_init', 0, 0)",
    "eventfd": "make('eventfd', 0, 0)",
    "signalfd": "make('signalfd', -1, bytes(128), 0)",
    "timerfd": "make('timerfd_create', 1, 0)",
    "timer": "make('timer_create', 1, None, ctypes.byref(ctypes.c_long()))",
    "queued signals": "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGRTMIN])\n"
    "os.kill(os.getpid(), signal.SIGRTMIN)",
    "key": "made({'x86_64': 248, 'aarch64': 217}[os.uname().machine], b'user', b'x', b'x', 1, -2)",
    "secret memory": "made(447, 0)",
    "io_uring": "made(425, 8, bytes(120))",
    "userfaultfd": "made({'x86_64': 323, 'aarch64': 282}[os.uname().machine], 1)",
    "event of perf": "made({'x86_64': 298, 'aarch64': 241}[os.uname().machine], bytes(112), 0, -1, -1, 0)",
    "map of BPF": "made({'x86_64': 321, 'aarch64': 280}[os.uname().machine], 0, bytes(112), 112)",
    "rules of landlock": "made(444, ctypes.byref(ctypes.c_uint64(1)), 8, 0)",
    "file in a tmpfs": "open('/x', 'w')",
    "pages of another process": "made({'x86_64': 311, 'aarch64': 271}[os.uname().machine], 1, None, 0, None, 0, 0)",
    "handle of a process": "os.pidfd_open(os.getpid())",
    "other filter": "made({'x86_64': 317, 'aarch64': 277}[os.uname().machine], 1, 0, None)",
}
# These the kernel may lack, or refuse to everybody or to users without rights.
MAY_BE_REFUSED_ANYWAY = {
    "io_uring", "userfaultfd", "event of perf", "map of BPF", "secret memory", "rules of landlock", "fanotify",
    "file in a tmpfs", "pages of another process", "other filter", "larger pipe", "lease", "key",
}  # fmt: skip


@pytest.fixture
def sandbox() -> Bubblewrap:
    if find_bubblewrap() is None:
        pytest.skip("there is no bwrap: apt-get install bubblewrap")
    return Bubblewrap()


def judge(sandbox: Bubblewrap, extra: str) -> Judgement:
    """Judge a right answer that does something else first."""
    return sandbox.judge(
        Program(
            prompt='def double(x):\n    """Return twice x."""\n',
            completion=f"    return 2 * x\n{PREAMBLE}{extra}\n",
            test="def check(candidate):\n    assert candidate(2) == 4\n",
            entry_point="double",
        )
    )


@pytest.mark.parametrize("hoard", HOARDS)
def test_no_object_of_the_kernel_can_be_made_that_no_limit_counts(
    sandbox: Bubblewrap, hoard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = "OSError" if hoard == "file in a tmpfs" else "PermissionError"  # the file system is read-only

    assert judge(sandbox, HOARDS[hoard]).reason == expected

    if hoard not in MAY_BE_REFUSED_ANYWAY:  # it is the filter, or a limit of the process, that refuses it
        monkeypatch.setattr(bubblewrap, "seccomp_filter", _allow_all)
        assert judge(sandbox, HOARDS[hoard]).reason in ("", "OSError", "BlockingIOError"), "the test tries nothing"


def _allow_all() -> bytes:
    return struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)


def test_every_call_that_the_filter_does_not_name_is_refused(sandbox: Bubblewrap) -> None:
    # The last two are x86_64's ways back from a probe: they come before any filter, and end all others with SIGILL.
    allowed = {*(numbers[MACHINE] for numbers in seccomp._CALLS.values()), 335, 336}
    tries = f"""
for number in set(range(800)) - {allowed}:
    ctypes.set_errno(0)
    assert libc.syscall(number, 0, 0, 0, 0, 0, 0) == -1, number
    assert ctypes.get_errno() == (1 if number < 463 else 38), number
"""

    assert judge(sandbox, tries) == Judgement(passed=True)


def test_pages_far_apart_end_before_their_tables_take_much(sandbox: Bubblewrap) -> None:
    spread = """
libc.mmap.restype = libc.mmap.argtypes = None
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
for place in range(1, 60_000):
    libc.mmap(place << 31, 4096, 3, 0x32, -1, 0)
    ctypes.memset(place << 31, 1, 1)
import time
time.sleep(1)
"""

    assert judge(sandbox, spread).reason == "its memory is spread too far: the page tables would take too much"


def test_a_completion_that_waits_is_ended_after_seconds_and_one_that_computes_is_not(sandbox: Bubblewrap) -> None:
    sleeps = {
        "sleep": "import time\ntime.sleep(1000)",
        "naps": "import time\nwhile True: time.sleep(0.01)",
        "lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
        "reading what never comes": "os.read(3, 2**20)\nos.read(3, 1)",
    }
    for name, extra in sleeps.items():
        started_s = time.monotonic()
        assert judge(sandbox, extra).reason == "it waited for 2 s without computing", name
        assert time.monotonic() - started_s < 15, name

    computing = replace(sandbox, wait_s=0.2)
    assert judge(computing, "import time\nwhile time.process_time() < 1: pass").passed
    assert judge(sandbox, "import time\ntime.sleep(0.5)").passed
