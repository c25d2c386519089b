#!/usr/bin/env python3
"""Workers whose CPUs add products of bf16 in different orders (LEPTON_BF16_SUMS stands in for the
CPU): a job has the same bits wherever its ranks and attempts run."""
import json
import pathlib
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, lepton, main, train_spec  # noqa: E402


def spec(workers=1, **fields):
    fields.setdefault("epochs", 3)
    fields.setdefault("precision", "bf16")
    return train_spec(model={"hidden": [128, 128]},
                      resources={"min_workers": workers, "max_workers": workers},
                      elastic={"logical_shards": 4}, **fields)


class MixedCpus(unittest.TestCase):
    def cluster(self, *kinds, variable="LEPTON_BF16_SUMS"):
        cluster = Cluster(workers=0)
        self.addCleanup(cluster.stop)
        for kind in kinds:
            cluster.start_worker(f"{kind}-{len(cluster.workers)}", slots=1, env={variable: kind})
        cluster.wait_for_workers(len(kinds))
        return cluster

    def digest(self, cluster, job_id):
        job = cluster.wait_job(job_id)
        self.assertEqual(job["state"], "SUCCEEDED", job)
        return job["result"]["weights_sha256"]

    def test_a_mixed_gang_has_the_bits_of_one_with_tiles(self):
        mixed = self.cluster("tiles", "pairs")
        self.assertEqual({w["id"]: w["bf16_sums"] for w in mixed.items("/v1/workers")},
                         {"tiles-0": "tiles", "pairs-1": "pairs"})
        tiles = self.cluster("tiles")
        pairs = self.cluster("pairs")
        wanted = self.digest(tiles, tiles.submit(spec()))
        self.assertEqual(self.digest(mixed, mixed.submit(spec(workers=2))), wanted)
        self.assertNotEqual(self.digest(pairs, pairs.submit(spec())), wanted)

    def test_a_job_keeps_its_order_on_a_worker_of_the_other_kind(self):
        pairs = self.cluster("pairs")
        long = spec(epochs=60, checkpoint={"every_steps": 50}, restart={"max": 3, "backoff": "100ms"})
        wanted = self.digest(pairs, pairs.submit(long))
        job_id = pairs.submit(long)
        pairs.wait_checkpoint(job_id)
        pairs.kill(pairs.workers[0])
        pairs.start_worker("tiles-1", slots=1, env={"LEPTON_BF16_SUMS": "tiles"})
        self.assertEqual(self.digest(pairs, job_id), wanted)
        job = pairs.job(job_id)
        self.assertGreater(job["attempt"], 1, "it ended before its worker was killed")

    def test_f32_is_the_same_with_every_vector_instruction_set(self):
        digests = []
        for isa in ("avx2", "avx512"):
            pool = self.cluster(isa, variable="LEPTON_CPU_ISA")
            digests.append(self.digest(pool, pool.submit(spec(precision="f32"))))
        self.assertEqual(*digests)

    def test_an_order_or_an_instruction_set_that_is_none_is_refused(self):
        for name, value, message in (
                ("LEPTON_BF16_SUMS", "quads", "is no order of sums: tiles or pairs"),
                ("LEPTON_CPU_ISA", "mmx", "is no instruction set: baseline, avx2 or avx512")):
            self.refuses({name: value}, f"{name}: '{value}' {message}")

    def refuses(self, env, message):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "job.json"
            path.write_text(json.dumps(spec()))
            for command in (["run", path], ["worker", "--join", folder]):
                result = lepton(*command, env=env)
                self.assertEqual(result.returncode, 2, result)
                self.assertIn(message, result.stderr)


if __name__ == "__main__":
    main()
