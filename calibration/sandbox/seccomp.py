"""A seccomp filter for code that only computes: it names the system calls that may be made, and refuses all others.

The namespaces of bubblewrap keep calls from reaching anything outside. The filter is there for what they leave: memory
and objects of the kernel that no limit counts. Queues, semaphores, shared memory, files in memory, sockets, pipes,
locks of files, timers, keys, rules of security modules: each of them can hold more than RLIMIT_AS allows, and each new
kernel brings more. So none of them can be made, known or not.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import platform
import struct
import termios
from collections.abc import Iterator
from typing import NamedTuple

# Linux's audit numbers of the architectures, and the numbers of the calls on each.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CALLS = {
    # name: (x86_64, aarch64); None where the architecture has no such call
    # files that are open or may be read
    "read": (0, 63),
    "readv": (19, 65),
    "pread64": (17, 67),
    "write": (1, 64),
    "writev": (20, 66),
    "close": (3, 57),
    "close_range": (436, 436),
    "lseek": (8, 62),
    "open": (2, None),
    "openat": (257, 56),
    "stat": (4, None),
    "lstat": (6, None),
    "fstat": (5, 80),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getdents64": (217, 61),
    "getcwd": (79, 17),
    "chdir": (80, 49),
    "umask": (95, 166),
    "dup": (32, 23),
    "dup2": (33, None),
    "dup3": (292, 24),
    # memory, all of which RLIMIT_AS counts
    "munmap": (11, 215),
    "mprotect": (10, 226),
    "mremap": (25, 216),
    "brk": (12, 214),
    # own signals and timers: a process has a fixed number of these
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "alarm": (37, None),
    "getitimer": (36, 102),
    "setitimer": (38, 103),
    # time, and waiting
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "restart_syscall": (219, 128),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    "sched_yield": (24, 124),
    "wait4": (61, 260),
    "waitid": (247, 95),
    # questions
    "getpid": (39, 172),
    "getppid": (110, 173),
    "gettid": (186, 178),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getresuid": (118, 148),
    "getresgid": (120, 150),
    "getgroups": (115, 158),
    "getpgrp": (111, None),
    "sysinfo": (99, 179),
    "uname": (63, 160),
    "sched_getaffinity": (204, 123),
    "getrusage": (98, 165),
    "times": (100, 153),
    "getrandom": (318, 278),
    "getrlimit": (97, 163),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    # a thread's start and end
    "execve": (59, 221),
    "set_tid_address": (218, 96),
    "set_robust_list": (273, 99),
    "rseq": (334, 293),
    "arch_prctl": (158, None),
    "futex": (202, 98),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # with some arguments only: see below
    "fcntl": (72, 25),
    "ioctl": (16, 29),
    "madvise": (28, 233),
    "mmap": (9, 222),
}


class _Argument(NamedTuple):
    """What an argument, counted from 0, may be: one of these values, or any without a bit."""

    position: int
    values: tuple[int, ...] = ()
    without: int = 0


_CLOSE_ON_EXEC = (0x5450, 0x5451)  # FIONCLEX, FIOCLEX
_ARGUMENTS = {
    # No locks, whose number has no limit, no leases and no larger pipes.
    "fcntl": _Argument(
        1, (fcntl.F_DUPFD, fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL)
    ),
    "ioctl": _Argument(1, (termios.TCGETS, termios.TIOCGWINSZ, termios.FIONREAD, *_CLOSE_ON_EXEC)),
    # No huge pages: one stays as a whole while a small part of it is mapped and counted.
    "madvise": _Argument(2, (mmap.MADV_NORMAL, mmap.MADV_DONTNEED, mmap.MADV_FREE)),
    # Shared memory stays as a whole, too, while a page of it is mapped.
    "mmap": _Argument(3, without=mmap.MAP_SHARED),
}
_NEWER = 463  # the first number that this table does not know: libraries expect ENOSYS of a call that may be missing
# Of classic BPF, and where the fields of its input begin.
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000


def seccomp_filter(machine: str = platform.machine()) -> bytes | None:
    """Return the program that bubblewrap installs, or None for an architecture whose numbers are not known here."""
    if machine not in _ARCHITECTURES:
        return None
    column = list(_ARCHITECTURES).index(machine)
    numbers = {name: number for name, both in _CALLS.items() if (number := both[column]) is not None}
    steps = [
        _step(_LOAD, _ARCHITECTURE),
        _step(_EQUAL, _ARCHITECTURES[machine], if_so=1),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER),
        # Among them is x86_64's second table of calls, whose numbers have a high bit set.
        _step(_AT_LEAST, _NEWER, if_not=1),
        _step(_RETURN, _ERROR | errno.ENOSYS),
    ]
    for name, number in numbers.items():
        allowing = list(_allow(_ARGUMENTS.get(name)))
        steps += [_step(_EQUAL, number, if_not=len(allowing)), *allowing]
    return b"".join([*steps, _step(_RETURN, _ERROR | errno.EPERM)])


def _allow(argument: _Argument | None) -> Iterator[bytes]:
    """Yield what follows a call's number: every way through it returns."""
    if argument is None:
        yield _step(_RETURN, _ALLOW)
        return
    yield _step(_LOAD, _FIRST_ARGUMENT + 8 * argument.position)  # its lower half: the kernel reads no more of these
    if argument.without:
        yield _step(_ANY_BIT, argument.without, if_so=1)
        yield _step(_RETURN, _ALLOW)
    for value in argument.values:
        yield _step(_EQUAL, value, if_not=1)
        yield _step(_RETURN, _ALLOW)
    yield _step(_RETURN, _ERROR | errno.EPERM)


def _step(code: int, value: int, *, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_so, if_not, value)
