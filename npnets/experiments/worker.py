"""A process that does one run: ``python -m npnets.experiments.worker TASK``.

It is started by :mod:`npnets.experiments.running`, and prints its progress as lines of JSON. When its standard input is
closed, that is Ctrl-C: it saves and stops.
"""

import _thread
import contextlib
import json
import os
import signal
import sys
import threading

from npnets import experiments
from npnets.experiments.running import Task, perform


def main():
    """Do the run that the command line tells; return the exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where a shell has switched it off for its children
    task = Task(**json.loads(sys.argv[1]))
    threading.Thread(target=_watch, daemon=True).start()
    try:
        _say({"finished": perform(task, experiments.get(task.experiment), _say)})
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, MemoryError) as error:
        print(f"{type(error).__name__}: {' '.join(str(error).split())}")
        return 1
    return 0


def _watch():
    """Interrupt the run when standard input ends."""
    while os.read(0, 1):  # not sys.stdin, whose lock a waiting thread would hold at the end of the process
        pass
    _thread.interrupt_main()


def _say(message):
    with contextlib.suppress(OSError):  # nobody listens any more: then standard input is closed, too
        print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main())
