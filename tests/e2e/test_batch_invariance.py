"""An item's scores have the same bits whoever shares its batch: alone, among 5, 64, 130 others, in any place.

The same holds between `homerank score`, Rank and RankStream, whatever batches the server makes of them.
"""

import os

import numpy as np

import harness

import compare
import random_models

OTHERS = (0, 5, 64, 130)
SERVERS = ((), ("--max-batch-rows", "7", "--threads", "3"),
           ("--max-batch-rows", "1000", "--max-queue-delay-us", "2000"))
KINDS = (("home2", 9), ("mmoe", 4), ("odd", 10))


def bits(values):
    """float32 values as integers: equal bits, not equal numbers."""
    return tuple(int(x) for x in np.asarray(values, np.float32).view(np.uint32))


class BatchInvariance(harness.Case):

    def make_requests(self, base):
        """Requests for the user and context of `base`, with the item "43" alone and among others, in several places."""
        rng = np.random.default_rng(5)
        requests = []
        for others in OTHERS:
            for place in sorted({0, others // 2, others}):
                ids = ["%d" % i for i in rng.integers(100, 900, others)]
                ids.insert(place, "43")
                requests.append({"request_id": "%d/%d" % (place, others), "user_id": base["user_id"],
                                 "context": base["context"], "item_ids": ids})
        return requests

    def check(self, kind, seed, precision):
        out = self.path(precision, kind)
        config, rng = random_models.make_config(kind, seed)
        paths = random_models.generate(out, kind, seed)
        uri = "lmdb:" + os.path.join(out, "store.lmdb")
        random_models.write_lines(paths["records"], random_models.make_records(rng, config, n_items=1000))
        self.must_run("features", "load", "--store", uri, "--in", paths["records"])
        requests = self.make_requests(compare.read_lines(paths["requests"])[0])
        random_models.write_lines(paths["requests"], requests)
        found = {}

        def note(where, item_id, score, tasks):
            found.setdefault((item_id, bits([score] + [tasks[name] for name in sorted(tasks)])), set()).add(where)

        self.must_run("score", "--model", paths["model"], "--store", uri, "--in", paths["requests"], "--out",
                      os.path.join(out, "answers"), "--precision", precision)
        for answer in compare.read_lines(os.path.join(out, "answers")):
            for row in answer["items"]:
                note("score " + answer["request_id"], row["item_id"], row["score"], row["tasks"])

        messages = [harness.request_of_json(request) for request in requests]
        for flags in SERVERS:
            server = self.start_server("--models", out, "--store", uri, "--precision", precision, *flags)
            with server.connect() as client:
                for how, answers in (("Rank", [client.rank_request(message) for message in messages]),
                                     ("Rank side by side", harness.send_all(client, messages * 4)),
                                     ("RankStream", client.rank_stream(iter(messages)))):
                    for answer in answers:
                        for row in answer:
                            note(" ".join((how, answer.request_id) + flags), row.item_id, row.score, row.tasks)
            self.assertEqual(server.terminate(), 0)
        self.assertEqual(len({item_id for item_id, _ in found}), len({i for r in requests for i in r["item_ids"]}))
        by_item = {}
        for (item_id, key), where in found.items():
            by_item.setdefault(item_id, {})[key] = where
        several = {item_id: versions for item_id, versions in by_item.items() if len(versions) > 1}
        self.assertFalse(several, "%d of %d items have scores of several bits: %s" %
                         (len(several), len(by_item), dict(list(several.items())[:1])))

    def test_f32(self):
        for kind, seed in KINDS:
            with self.subTest(model=kind):
                self.check(kind, seed, "f32")

    def test_bf16(self):
        for kind, seed in KINDS:
            with self.subTest(model=kind):
                self.check(kind, seed, "bf16")


if __name__ == "__main__":
    harness.main()
