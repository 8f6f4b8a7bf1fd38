"""Runs a program and kills it with SIGKILL at one of its steps, which are its system calls and those of the processes that
it starts, until these run programs of their own. Which one says the file `AT`, and they are counted from when that is there.
Where a word stands behind the number, only the steps of those processes count, and the one whose step it was stands still from then
on: SIGCONT has it go on.

Usage: kill_at_step.py AT WHERE PROGRAM ARGUMENT...

`AT` then becomes `WHERE`, which says what the step was: whoever removes `AT` in time has the program live on. Nobody else is
killed: a process that was about to be born goes on by itself.
"""
import ctypes
import os
import platform
import signal
import sys

TRACE_ME, CONTINUE, DETACH, SYSCALL, SET_OPTIONS, SYSCALL_INFO = 0, 7, 17, 24, 0x4200, 0x420E
GOOD_SYSCALLS, FORK, VFORK, CLONE, EXEC, EXIT_KILL = 1, 2, 4, 8, 16, 1 << 20
EVENT_EXEC = 4
ENTRY = 1

# What changes nothing that outlives the program is no step. On a machine whose numbers are others, everything is one.
COUNTED = {
    "write": 1, "close": 3, "pwrite64": 18, "writev": 20, "clone": 56, "execve": 59, "kill": 62, "ftruncate": 77,
    "rename": 82, "mkdir": 83, "unlink": 87, "waitid": 247, "openat": 257, "mkdirat": 258, "unlinkat": 263,
    "renameat": 264, "fallocate": 285, "renameat2": 316, "pidfd_send_signal": 424, "pidfd_open": 434, "clone3": 435,
}
NAMES = {number: name for name, number in COUNTED.items()} if platform.machine() == "x86_64" else None
# A process that is born does the same for each of 64 signals.
REPEATED = 13

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request, pid, address=0, data=0):
    return libc.ptrace(request, pid, address, data)


def entered(pid):
    """The number of the system call that begins, or None if one ends."""
    info = ctypes.create_string_buffer(88)
    if ptrace(SYSCALL_INFO, pid, len(info), ctypes.addressof(info)) < 0 or info.raw[0] != ENTRY:
        return None
    return int.from_bytes(info.raw[24:32], sys.byteorder)


def threads_of(pid):
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    except OSError:
        return set()


def is_step(number, ours):
    if NAMES is None:
        return True
    return number in NAMES if ours else number != REPEATED


def main(at, where, command):
    program = os.fork()
    if program == 0:
        ptrace(TRACE_ME, 0)
        os.execvp(command[0], command)
    os.waitpid(program, 0)
    ptrace(SET_OPTIONS, program, 0, GOOD_SYSCALLS | FORK | VFORK | CLONE | EXEC | EXIT_KILL)
    ptrace(SYSCALL, program)
    wanted, count, held, killed, ended = None, 0, False, False, 0
    ours = {program}
    while True:
        try:
            pid, status = os.waitpid(-1, 0x40000000)  # __WALL
        except ChildProcessError:
            return ended
        if not os.WIFSTOPPED(status):
            ours.discard(pid)
            if pid == program:
                ended = os.waitstatus_to_exitcode(status)
            continue
        stop, event = os.WSTOPSIG(status), status >> 16
        if pid not in ours and pid in threads_of(program):
            ours.add(pid)
        is_ours = pid in ours
        if not is_ours and (killed or event == EVENT_EXEC):
            ptrace(DETACH, pid)
            continue
        if stop == signal.SIGTRAP | 0x80:
            if wanted is None and not killed:
                try:
                    with open(at) as file:
                        words = file.read().split()
                    wanted, count, held = int(words[0]), 0, len(words) > 1
                except (OSError, ValueError, IndexError):
                    pass
            number = entered(pid)
            if wanted is not None and number is not None and is_step(number, is_ours) and not (held and is_ours):
                count += 1
                if count == wanted:
                    wanted = None
                    # Whoever removes the file in time has it live on.
                    try:
                        os.rename(at, where)
                        killed = True
                    except OSError:
                        pass
                if killed:
                    name = (NAMES or {}).get(number, number)
                    with open(where, "w") as file:
                        file.write(f"{name} of {'the program' if is_ours else f'a process that it starts: {pid}'}")
                    os.kill(program, signal.SIGKILL)
                    if not is_ours:
                        if held:
                            os.kill(pid, signal.SIGSTOP)
                        ptrace(DETACH, pid)
                        continue
            ptrace(SYSCALL, pid)
        elif event or stop == signal.SIGTRAP or stop == signal.SIGSTOP:
            ptrace(SYSCALL, pid)
        else:
            ptrace(SYSCALL, pid, 0, stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]) & 0x7F)
