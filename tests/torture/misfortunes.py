"""What can befall a runner, as a stub that knows more of it; and the same befalling the daemon, as a control."""

from __future__ import annotations

from typing import Final

from torture.stub import STUB

#: Ends that the system notices at once.
DEATHS: Final = ("SIGABRT", "SIGSEGV", "SIGKILL", "SIGBUS", "SIGPIPE", "memory", "exit1")
#: A process that is there and does nothing more: stopped, spinning, asleep.
HANGS: Final = ("stop", "spin", "hang")

_MORE: Final = '''

_few = misbehave


def misbehave(how):
    """Some more ways to break a runner."""
    if how == "SIGPIPE":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it
    if how == "spin":
        while True:
            pass
    if how == "memory":
        import resource

        # A limit of 256 MB more than there is now: the allocation that goes beyond it fails.
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if os.path.exists("/proc") else 0
        room = pages * resource.getpagesize() + 256 * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (room, resource.getrlimit(resource.RLIMIT_AS)[1]))
        how = "eat"
    _few(how)
'''

_IN_PROCESS: Final = '''

def _in_the_daemon(self, ctx, params, key, seconds):
    """Do in this process what a runner is there for."""
    misbehave("" if params.until_fence and ctx.job.fence > params.until_fence else params.behave)
    time.sleep(seconds)
    return expected(key, params.size)


Stub._step = _in_the_daemon
'''

#: The stub, with more ways to die.
PLUGIN: Final = STUB + _MORE
#: The same without runners: what happens to a request happens to the daemon.
IN_PROCESS: Final = PLUGIN + _IN_PROCESS
