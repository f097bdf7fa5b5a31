"""A seccomp filter for code that only computes: no processes, no threads, no sockets, no memory outside the limits.

The namespaces of bubblewrap keep such calls from reaching anything outside. The filter is there for what they leave:
RLIMIT_NPROC does not bind root, and shared memory and memfds are not counted by RLIMIT_AS.
"""

from __future__ import annotations

import errno
import platform
import struct

# Linux's audit numbers of the architectures, and the numbers of the calls on each.
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CALLS = {
    # name: (x86_64, aarch64); None where the architecture has no such call
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "shmget": (29, 194),
    "memfd_create": (319, 279),
    "io_uring_setup": (425, 425),
    "userfaultfd": (323, 282),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "add_key": (248, 217),
}
_X32 = 0x40000000  # the bit of x86_64's second table of calls, which would walk past a list of numbers
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # of classic BPF
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM


def seccomp_filter(machine: str = platform.machine()) -> bytes | None:
    """Return the program that bubblewrap installs, or None for an architecture whose numbers are not known here."""
    if machine not in _ARCHITECTURES:
        return None
    column = list(_ARCHITECTURES).index(machine)
    numbers = [number for numbers in _CALLS.values() if (number := numbers[column]) is not None]
    return b"".join(
        (
            _step(_LOAD, 4),
            _step(_EQUAL, _ARCHITECTURES[machine], if_not=len(numbers) + 4),
            _step(_LOAD, 0),
            _step(_AT_LEAST, _X32, if_so=len(numbers) + 1),
            *(_step(_EQUAL, number, if_so=len(numbers) - index) for index, number in enumerate(numbers)),
            _step(_RETURN, _ALLOW),
            _step(_RETURN, _REFUSE),
            _step(_RETURN, _KILL),
        )
    )


def _step(code: int, value: int, *, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("HBBI", code, if_so, if_not, value)
