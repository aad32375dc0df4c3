"""What quickstart asks in Python, from the JSON that `omni run` and `omni chat` write.

    demo_report.py prompts FILE.jsonl            the prompts' texts, one a line
    demo_report.py report LS.jsonl BE.jsonl OFFLOAD   the summaries, the table, and whether it is right
"""

import json
import sys
import textwrap


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file if line.strip()]


def command_prompts(path):
    for request in read_lines(path):
        print(" ".join(" ".join(m["content"].split()) for m in request["messages"]))


COLUMNS = (("request", 8), ("class", 5), ("prompt", 6), ("output", 6), ("TTFT ms", 9), ("TPOT ms", 8),
           ("device", 6), ("worker", 6), ("rode along", 10), ("parked", 7), ("ended by", 8))


def number(value):
    return "-" if value is None else f"{value:.1f}"


def row(name, done):
    return (name, done["class"], done["prompt_tokens"], done["output_tokens"], number(done["ttft_ms"]),
            number(done["tpot_ms"]), done["device_tokens"], done["worker_tokens"],
            done["ridealong_jobs"], done["parked_jobs"], done["finish_reason"])


def print_row(cells):
    print("  ".join(f"{cell!s:>{width}}" for cell, (_, width) in zip(cells, COLUMNS)))


def print_table(named):
    print_row([title for title, _ in COLUMNS])
    for name, done in named:
        print_row(row(name, done))
    print("\nprompt, output, device, worker: tokens; device and worker: where the attention of the output\n"
          "tokens ran; rode along: attention jobs back before the same sweep passed their layer; parked:\n"
          "jobs whose row waited for a later sweep.")


def problems_of(named, offload):
    """Why the run is not what it should be; empty when it is."""
    found = [f"{name} ended with {done['finish_reason']}: {done.get('error', 'no reason given')}"
             for name, done in named if done["finish_reason"] not in ("stop", "length")]
    found += [f"{name} has no text" for name, done in named if not done["text"].strip()]
    if sum(done["class"] == "be" for _, done in named) != 8:
        found.append("there should be 8 BE answers")
    on_workers = sum(done["worker_tokens"] for _, done in named)
    if offload == "never" and on_workers:
        found.append(f"{on_workers} tokens attended on workers with --offload never")
    if offload != "never" and not on_workers:
        found.append("no attention ran on the workers, although the device cannot hold all requests")
    if any(done["worker_tokens"] for _, done in named if done["class"] == "ls"):
        found.append("an LS request attended on a worker")
    return found


def command_report(ls_path, be_path, offload):
    be = sorted(read_lines(be_path), key=lambda done: done.get("index", 0))
    named = [("chat", done) for done in read_lines(ls_path)]
    named += [(f"text {i + 1}", done) for i, done in enumerate(be)]
    for name, done in named[1:]:
        print(textwrap.fill(f"{name}: " + " ".join(done["text"].split()), 100, subsequent_indent="        "))
    print()
    print_table(named)
    for problem in (found := problems_of(named, offload)):
        print("error:", problem, file=sys.stderr)
    return 1 if found else 0


COMMANDS = {"prompts": command_prompts, "report": command_report}

if __name__ == "__main__":
    sys.exit(COMMANDS[sys.argv[1]](*sys.argv[2:]))
