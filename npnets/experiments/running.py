"""Many runs, one after the other or side by side, with an estimate of the time left.

Side by side, each run is a process of its own (:mod:`npnets.experiments.worker`). This one reads their progress, a line
of JSON each, and holds their standard input open: when that is closed, because of Ctrl-C or because this process is no
more, they save and stop.
"""

import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path
from typing import NamedTuple

from npnets.experiments import single
from npnets.experiments.records import Record


class Task(NamedTuple):
    """One run: what a worker process is told, as JSON."""

    experiment: str
    variant: str
    settings: dict
    data: str | None  # folder of the data sets
    out: str  # folder of the records
    resumable: bool
    command: str
    jobs: int
    threads: int

    def __str__(self):
        return f"{self.variant}, seed {self.settings['seed']}"


def perform(task, experiment, tell):
    """Do a run in this process, write its record, and return a sentence that tells the result."""
    how = {"jobs": task.jobs, "threads": task.threads}
    record, arrays = single.run(
        experiment, task.variant, task.settings, data=task.data, resumable=task.resumable, threads=task.threads,
        tell=tell,
    )  # fmt: skip
    single.write(task.out, record, arrays, task.command, how)
    if task.resumable:
        single.forget(experiment, task.variant, task.settings)
    return f"{task}: {sentence(Record(record))}"


def sentence(record):
    """Tell the result of a run in a few words."""
    if record.diverged:
        return f"diverged at step {record.diverged['step']:,}, {record['seconds']:,.0f} s"
    return f"test accuracy {record.last():.2%} in the end, {record['seconds']:,.0f} s"


def one_by_one(tasks, experiment, progress):
    """Do all runs in this process."""
    for task in tasks:
        progress.finish(task, perform(task, experiment, lambda message, task=task: progress.tell(task, message)))


def side_by_side(tasks, jobs, progress):
    """Do all runs, ``jobs`` at a time, in processes of their own.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, when all runs have been saved; a second one kills them.
    ValueError
        If a run fails; the others are saved and stopped.
    """
    messages = queue.SimpleQueue()
    waiting, running = deque(tasks), []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(_Worker(waiting.popleft(), messages))
            worker, message = messages.get()
            if "finished" in message:
                progress.finish(worker.task, message["finished"])
            elif "done" in message:
                progress.tell(worker.task, message)
            else:
                running.remove(worker)
                worker.check()
    except BaseException:
        _stop(running)
        raise


def _stop(workers):
    try:
        for worker in workers:
            worker.process.stdin.close()
        for worker in workers:
            worker.listener.join()
    except KeyboardInterrupt:
        for worker in workers:
            worker.process.kill()


def environment():
    """Return the environment variables of a worker: npnets need not be installed for it to be found."""
    paths = [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


class _Worker:
    """A process that does one run, and a thread that reads what it says."""

    def __init__(self, task, messages):
        self.task, self.messages, self.said, self.done = task, messages, [], False
        self.process = subprocess.Popen(
            [sys.executable, "-m", "npnets.experiments.worker", json.dumps(task._asdict())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
            start_new_session=True,  # Ctrl-C in the terminal is for this process alone, which then tells the others
        )
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self):
        with self.process.stdout as lines:
            for line in lines:
                if line.startswith("{"):
                    message = json.loads(line)
                    self.done |= "finished" in message
                    self.messages.put((self, message))
                else:
                    self.said.append(line.strip())
        self.process.wait()
        self.messages.put((self, {"ended": self.process.returncode}))

    def check(self):
        """Raise a ``ValueError`` if the run did not come to its end."""
        self.process.stdin.close()
        self.listener.join()
        if not self.done:
            reason = next((line for line in reversed(self.said) if line), f"exit code {self.process.returncode}")
            raise ValueError(f"the run of {self.task} failed: {reason}")


class Progress:
    """How far all runs are, on stderr: epochs done, time left, and a line for each run that has ended."""

    def __init__(self, name, tasks, shown):
        self.shares, self.shown, self.bar = {}, shown, None
        self.runs, self.ended = len(tasks), 0
        if shown:
            from tqdm import tqdm

            self.bar = tqdm(
                total=sum(task.settings["epochs"] for task in tasks),
                desc=name,
                bar_format="{desc}: {percentage:3.0f}% |{bar}| {n:.1f}/{total} epochs [{elapsed}<{remaining}{postfix}]",
                mininterval=0.5 if sys.stderr.isatty() else 30,  # a log file does not need two lines a second
                smoothing=0,  # the time left is estimated from all that was done: runs are not equally fast
                dynamic_ncols=True,
            )

    def tell(self, task, message):
        """Show how far a run is."""
        if self.shown:
            self._move(task, message["done"])
            self.bar.set_postfix_str(f"{task}: loss {message['loss']:.3f}", refresh=False)

    def finish(self, task, text):
        """Show that a run has ended."""
        self.ended += 1
        if self.shown:
            self._move(task, 1.0)
            self.bar.write(text, file=sys.stderr)

    def _move(self, task, share):
        key, epochs = str(task), task.settings["epochs"]
        if key not in self.shares:  # what a resumed run did earlier must not make this one look fast
            self.bar.initial += share * epochs
            self.bar.n += share * epochs
        change = (share - self.shares.get(key, share)) * epochs
        self.bar.update(min(change, self.bar.total - self.bar.n))  # a rounding error past the end makes tqdm warn
        self.shares[key] = share

    def close(self):
        """Leave the last line as it is."""
        if self.shown:
            self.bar.close()
