"""Looks into a group's shared memory, read-only: statistics pages, job slots, sequence directory, owner tags.

The layouts are those of common/shm/layout*.h; a segment of another magic or version is refused, so that a
change there is noticed here.  Values are read while their owners run: each is exact, several are no snapshot.
"""

import mmap
import os
import struct

MAGIC = 0x314D48534E4D4F00
KIND_JOBS, KIND_ARENA, KIND_DIRECTORY, KIND_STATS = 2, 3, 4, 5
VERSIONS = {KIND_JOBS: 2, KIND_ARENA: 1, KIND_DIRECTORY: 1, KIND_STATS: 1}
JOB_FREE, JOB_POSTED, JOB_DONE = 0, 1, 2


class Segment:
    """One mapped file; closes by itself with the last reference."""

    def __init__(self, folder, name, kind):
        self.path = os.path.join(folder, name)
        with open(self.path, "rb") as file:
            self.map = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        magic, found, version, total = self.get("<QIIQ", 0)
        if (magic, found, version, total) != (MAGIC, kind, VERSIONS[kind], len(self.map)):
            raise AssertionError(f"{self.path}: magic {magic:x} kind {found} version {version} bytes {total}, "
                                 f"expected kind {kind} version {VERSIONS[kind]} bytes {len(self.map)}")

    def get(self, layout, offset):
        return struct.unpack_from(layout, self.map, offset)

    def text(self, offset, size):
        return self.map[offset:offset + size].split(b"\0")[0].decode()


def stats(folder, program, index=0):
    """name -> value of a statistics page."""
    page = Segment(folder, f"stats-{program}-{index}", KIND_STATS)
    n, values_off, names_off = page.get("<III", 128)
    return {page.text(names_off + 128 * i, 48): page.get("<Q", values_off + 8 * i)[0] for i in range(n)}


class Job:
    """A slot's word and the sequence that it names."""

    def __init__(self, slot, fields):
        self.slot = slot
        self.word, self.seq_idx, self.seq_gen, self.layer, _, self.pos = fields
        self.state = self.word & 0xFF

    def key(self):
        return self.slot, self.word


def jobs(folder, worker, engine=0):
    table = Segment(folder, f"jobs-e{engine}-w{worker}", KIND_JOBS)
    n_slots, slots_off = table.get("<I", 128)[0], table.get("<I", 128 + 44)[0]
    return [Job(i, table.get("<QIIIII", slots_off + 128 * i)) for i in range(n_slots)]


def jobs_rerun(folder, worker, engine=0):
    """Jobs that a worker found posted when it attached."""
    return Segment(folder, f"jobs-e{engine}-w{worker}", KIND_JOBS).get("<Q", 392)[0]


def jobs_done(folder, worker, engine=0):
    """Jobs that workers ever finished in this table."""
    return Segment(folder, f"jobs-e{engine}-w{worker}", KIND_JOBS).get("<Q", 384)[0]


def owners(folder, worker, engine=0):
    """Owner tag (generation << 32 | index) of each arena block; 0: nobody's."""
    arena = Segment(folder, f"arena-e{engine}-w{worker}", KIND_ARENA)
    n_blocks, owners_off = arena.get("<QQ", 128)
    return arena.get(f"<{n_blocks}Q", owners_off)


def blocks_of(folder, seq_idx, engine=0):
    """(generation, arena blocks of layer group 0) of a sequence in the directory."""
    directory = Segment(folder, f"dir-e{engine}", KIND_DIRECTORY)
    n_entries, _, _, _, _, stride, blocks_off, _, entries_off = directory.get("<8IQ", 128)
    assert seq_idx < n_entries, f"job names sequence {seq_idx} of {n_entries}"
    entry = entries_off + stride * seq_idx
    generation, n_blocks = directory.get("<I", entry)[0], directory.get("<I", entry + 64)[0]
    return generation, directory.get(f"<{n_blocks}I", entry + blocks_off)


def held(folder, worker, engine=0):
    """What the jobs that are out at a worker name: (slot, word) -> (generation, blocks, their owner tags)."""
    tags = owners(folder, worker, engine)
    out = {}
    for job in jobs(folder, worker, engine):
        if job.state == JOB_POSTED:
            generation, blocks = blocks_of(folder, job.seq_idx, engine)
            assert generation == job.seq_gen, f"slot {job.slot} names {job.seq_idx}.{job.seq_gen}, now {generation}"
            out[job.key()] = generation, blocks, tuple(tags[block] for block in blocks)
    return out
