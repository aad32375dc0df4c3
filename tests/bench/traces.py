"""Published traces, read: arrivals and lengths, each as its publisher laid it out.

They lie in a folder that is no part of the project: $OMNI_SHARED_DATA, else ../shared/data beside the
sources.  Missing is raised where a file is not there.
"""

import csv
import datetime
import gzip
import itertools
import json
import os
import re
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))


def data_dir():
    return os.environ.get("OMNI_SHARED_DATA") or os.path.join(HERE, "../../../shared/data")


class Missing(Exception):
    """The trace is not on this machine."""


def opened(name, mode="rt"):
    path = os.path.join(data_dir(), name)
    if not os.path.exists(path):
        raise Missing(f"{path} is not there (OMNI_SHARED_DATA names the folder of traces)")
    if name.endswith(".gz"):
        return gzip.open(path, mode, encoding="utf-8", newline="")
    return open(path, mode, encoding="utf-8", newline="")


# ---- Readers: lists of (seconds, prompt, output), by time ---------------------------------------


def read_azure2023():
    with opened("traces/azure2023/AzureLLMInferenceTrace_conv.csv") as file:
        for row in csv.DictReader(file):
            at = datetime.datetime.fromisoformat(row["TIMESTAMP"][:26])
            yield at.timestamp(), int(row["ContextTokens"]), int(row["GeneratedTokens"])


def read_mooncake():
    with opened("traces/mooncake/conversation_trace.jsonl.gz") as file:
        for line in file:
            one = json.loads(line)
            yield one["timestamp"] / 1e3, one["input_length"], one["output_length"]


def read_sharegpt():
    """Measured requests of DistServe's runs; the longest run of one rate."""
    with opened("profiles/distserve/opt-13b-sharegpt_measured_requests.csv.gz") as file:
        runs = {}
        for row in csv.DictReader(file):
            runs.setdefault((row["system"], row["num_requests"], row["rate_req_s"]), []).append(row)
    for row in max(runs.values(), key=len):
        yield float(row["issue_s"]), int(row["prompt_len"]), int(row["output_len"])


def read_vidur():
    with opened("traces/vidur/arxiv_summarization_stats_llama2_tokenizer_filtered_v2.csv.gz") as file:
        for row in csv.DictReader(file):
            yield 0.0, int(float(row["num_prefill_tokens"])), int(float(row["num_decode_tokens"]))


def read_osc():
    with opened("traces/neo/osc-Llama-2-7b-hf.json") as file:
        for one in json.load(file):
            yield 0.0, one["prompt"], one["max_tokens"]


def read_csv(path):
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield float(row["seconds"]), int(row["prompt"]), int(row["output"])


REQUESTS = {"azure2023": read_azure2023, "mooncake": read_mooncake, "sharegpt": read_sharegpt,
           "vidur": read_vidur, "osc": read_osc}


# ---- ServeGen: clients with a law of arrivals and histograms of lengths, per time of day ----------


class Histogram:
    """Of a text {tokens: weight, ...}; empty ones are false."""

    def __init__(self, text):
        items = [item.split(":") for item in text.strip("{} \n").split(",") if ":" in item]
        self.values = [int(value) for value, _ in items]
        self.sums = list(itertools.accumulate(float(weight) for _, weight in items))

    def __bool__(self):
        return bool(self.values)

    def draw(self, rng):
        return rng.choices(self.values, cum_weights=self.sums)[0]


def read_servegen_clients(name):
    """client -> (rows, lengths), by client.  Rows, by time: seconds of the day, requests/s, coefficient of variation,
    law of the gaps.  Lengths: seconds of the day -> (prompts, outputs), each the text of a Histogram."""
    path = os.path.join(data_dir(), f"traces/servegen/{name}.tar.xz")
    if not os.path.exists(path):
        raise Missing(f"{path} is not there (OMNI_SHARED_DATA names the folder of traces)")
    rows, lengths = {}, {}
    with tarfile.open(path) as archive:
        for member in archive:
            found = re.search(r"chunk-(\d+)-(trace\.csv|dataset\.json)$", member.name)
            if not found:
                continue
            text = archive.extractfile(member).read().decode()
            if found[2] == "trace.csv":
                rows[found[1]] = [row for row in csv.reader(text.splitlines()) if len(row) >= 4]
            else:
                lengths[found[1]] = {float(start): (one["input_tokens"], one["output_tokens"])
                                     for start, one in json.loads(text).items()
                                     if one.get("input_tokens") and one.get("output_tokens")}
    return {client: (rows[client], lengths[client]) for client in sorted(rows) if client in lengths}
