"""Which share of a training step's time each kind of layer takes, beside its multiply-adds and parameters.

MobileNetV1 (Howard et al. 2017, section 3.2, Table 2) expects nearly all of the time in the 1x1 convolutions, because
nearly all of the multiply-adds are there. Blocks that train as one op are taken apart for this, which takes longer.

As a program, this file is the process that is measured: ``python -m npnets.benchmarks.shares JOB``.
"""

import json
import sys
from dataclasses import asdict, dataclass, replace

import numpy as np

from npnets import profiling
from npnets.benchmarks import harness, measure, networks
from npnets.benchmarks.report import Section, Table

PAPER_NETWORKS = (  # a batch of 8 needs less than 1 GB
    networks.Network("MobileNetV1, 224x224x3", "mobilenet_v1", {}, (224, 224, 3), batch=8, num_classes=1000),
    networks.Network("MobileNetV2, 224x224x3", "mobilenet_v2", {}, (224, 224, 3), batch=8, num_classes=1000),
)
STEP = ("step_seconds", "apart_seconds", "watched_seconds")
COUNTED = ("multiply-adds", "parameters")


def shares(setup, nets=networks.NETWORKS + PAPER_NETWORKS):
    """Time the layers of a training step of each network, at each number of threads.

    Of the rounds three at most are made, of the steps five: shares settle sooner than times do.
    """
    setup = replace(setup, rounds=min(setup.rounds, 3), steps=min(setup.steps, 5))
    jobs = [{"network": asdict(network), "threads": threads} for network in nets for threads in setup.threads]
    measured = [
        Profiled(job["network"]["name"], job["threads"], tuple(map(profiling.StepProfile.from_json, rounds)))
        for job, rounds in zip(jobs, in_turns(setup, "shares", jobs))
    ]
    tables = [_table(group) for group in _by_network(measured).values()]
    notes = (
        "Blocks are carried out layer by layer here, since their layers cannot be timed inside one op. Multiply-adds "
        "are counted as in `python -m npnets cost`, the backward as twice the forward; batch norm and activations have "
        "none, but take time. " + _looking(measured),
    )
    title = "Shares: where the time of a training step goes, by kind of layer"
    return Section(title, tuple(measured), tuple(tables), notes, setup.record())


def in_turns(setup, program, jobs):
    """Return for each job what ``npnets.benchmarks.<program>`` printed, round by round; the jobs take turns."""
    from tqdm import tqdm

    library = measure.Library("npnets", (sys.executable, "-m", f"npnets.benchmarks.{program}"), {})
    results = [[] for _ in jobs]
    with tqdm(total=setup.rounds * len(jobs), desc=program, unit="process", leave=False, disable=None) as bar:
        for _ in range(setup.rounds):
            for job, found in zip(jobs, results):
                found.append(measure.run_worker(library, job | {"steps": setup.steps, "warmup": setup.warmup}))
                bar.update()
    return results


def profile(job, **settings):
    """Return the profile of a job's network, in this process; the settings are those of ``profile_step``."""
    network = networks.Network(**job["network"])
    settings |= {"repeats": job["steps"], "warmup": job["warmup"], "threads": job["threads"], "name": network.name}
    return profiling.profile_step(networks.build(network), (network.batch, *network.image), **settings)


# --- What was found --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Profiled:
    """The training step of a network with a number of threads, a profile for each round."""

    network: str
    threads: int
    rounds: tuple

    @property
    def profile(self):
        """The :class:`profiling.StepProfile` whose every time is the median of the rounds'."""
        return median(self.rounds)

    def record(self):
        """Return the medians as a dict for JSON, and the seconds of the whole step in each round."""
        rounds = {name: [getattr(one, name) for one in self.rounds] for name in STEP}
        return {"network": self.network, "threads": self.threads, "rounds": rounds, "profile": self.profile.to_json()}


def median(profiles):
    """Return a profile of the same layers in which each time is the median of those of several profiles."""
    rows = []
    for same in zip(*(one.rows for one in profiles)):
        forward, backward = (
            getattr(same[0], way)._replace(seconds=_median(getattr(row, way).seconds for row in same))
            for way in ("forward", "backward")
        )
        rows.append(same[0]._replace(forward=forward, backward=backward, other=_median(row.other for row in same)))
    whole = {name: _median(getattr(one, name) for one in profiles) for name in STEP}
    return replace(profiles[0], rows=rows, repeats=sum(one.repeats for one in profiles), **whole)


def _median(numbers):
    return float(np.median(list(numbers)))


def _by_network(measured):
    """Return network -> what was measured of it, a :class:`Profiled` for each number of threads."""
    groups = {}
    for one in measured:
        groups.setdefault(one.network, []).append(one)
    return groups


def _table(measured):
    """Return a network's kinds of layers with their shares."""
    profiles = [one.profile for one in measured]
    found = [one.shares() for one in profiles]
    times = [f"time, {threads_in_words(one.threads)}" for one in measured]
    rows = []
    for kind, (_, macs, params) in found[-1].items():
        cells = [f"{shares[kind][0]:.1%}" for shares in found]
        rows.append((kind, *cells, *(f"{share:.2%}" if share else "" for share in (macs, params))))
    for name, label in (("apart_seconds", "the step, layer by layer"), ("step_seconds", "the step as it is")):
        milliseconds = (profiling.three_digits(1e3 * getattr(one, name)) for one in profiles)
        rows.append((label, *(f"{ms} ms" for ms in milliseconds), "", ""))
    batch = profiles[0].input_shape[0]
    return Table(f"{measured[0].network}, batch {batch}", ("", *times, *COUNTED), tuple(rows))


def _looking(measured):
    """Return a sentence: how much longer the steps took while their layers were timed."""
    changes = [one.profile.watched_seconds / one.profile.apart_seconds - 1 for one in measured]
    return f"Timing the layers changed the time of a step by {min(changes):+.1%} to {max(changes):+.1%}."


def threads_in_words(n):
    """Return ``1 thread``, ``2 threads``."""
    return f"{n} thread" + "s" * (n > 1)


def figures(records):
    """Return file name -> Figure for the records of this benchmark: time, multiply-adds and parameters by kind."""
    from npnets import plots

    groups = {}
    for record in records:
        found = profiling.StepProfile.from_json(record["profile"])
        bars = groups.setdefault(f"{record['network']}, batch {found.input_shape[0]}", {})
        for k, label in enumerate((f"time, {threads_in_words(record['threads'])}", *COUNTED)):
            bars.pop(label, None)  # so that what is counted stands below the last of the times
            bars[label] = {kind: line[k] for kind, line in found.shares().items()}
    return {"shares.png": plots.shares_by_kind(groups, title="A training step by kind of layer, layer by layer")}


def main():
    """Do the job on the command line, and print the profile as a line of JSON."""
    print(json.dumps(profile(harness.read_job()).to_json()))


if __name__ == "__main__":
    main()
