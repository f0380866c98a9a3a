#!/usr/bin/env python3
"""Compares statecache-sim with the reference results of the paper's simulator.

  tests/bench/oracle.py --sim build/release/bin/statecache-sim --oracle DIR --traces DIR

DIR of --oracle holds results.csv and alpha_sweep.csv, DIR of --traces the four workloads. Prints one row a
workload and capacity; with --check, fails where a column is further than 0.3 points from the reference.
"""

import argparse
import concurrent.futures
import csv
import json
import os
import subprocess
import sys

COLUMNS = [  # (name, row of results.csv, arguments)
    ("lru", "V1s", ["--policy", "lru"]),
    ("paper 0.5", "F3:mlp@0.5", ["--policy", "marconi-paper", "--alpha", "0.5"]),
    ("paper 1.0", "F3:mlp@1.0", ["--policy", "marconi-paper", "--alpha", "1.0"]),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--sim", required=True)
    parser.add_argument("--oracle", required=True)
    parser.add_argument("--traces", required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--within", type=float, default=0.3)
    parser.add_argument("--only", default="")
    args = parser.parse_args()

    reference = {}
    with open(os.path.join(args.oracle, "results.csv"), newline="") as file:
        for row in csv.DictReader(file):
            key = (row["workload"], int(row["capacity_bytes"]), row["policy"])
            reference[key] = 100 * float(row["token_hit_rate"])
    pairs = sorted({(w, c) for w, c, p in reference if p == "V1s" and c < 10**14})
    pairs = [p for p in pairs if args.only in f"{p[0]}:{p[1]}"]

    def run(job):
        (workload, capacity), (_, _, extra) = job
        command = [args.sim, "--trace", os.path.join(args.traces, workload + ".jsonl.gz"), "--model", "marconi-7b",
                   "--device", str(capacity), "--compat", "reference", "--block-tokens", "1", "--json"] + extra
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return 100 * json.loads(done.stdout)["token_hit_rate"]

    jobs = [(pair, column) for pair in pairs for column in COLUMNS]
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        measured = dict(zip(((p, c[0]) for p, c in jobs), pool.map(run, jobs)))

    print(f"{'workload':<10} {'GB':>5}" + "".join(f"  {name:>10} {row:>10} {'diff':>6}" for name, row, _ in COLUMNS))
    off = 0
    for workload, capacity in pairs:
        line = f"{workload:<10} {capacity / 1e9:>5.1f}"
        for name, row, _ in COLUMNS:
            want = reference[workload, capacity, row]
            have = measured[(workload, capacity), name]
            off += abs(have - want) > args.within
            line += f"  {have:>10.2f} {want:>10.2f} {have - want:>+6.2f}"
        print(line)
    print(f"{off} of {len(jobs)} further than {args.within} points away")
    return 1 if args.check and off else 0


if __name__ == "__main__":
    sys.exit(main())
