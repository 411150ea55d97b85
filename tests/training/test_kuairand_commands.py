"""training/kuairand.py on made-up files in KuaiRand's form: what is trained on some days is scored alike by evaluate
and by a real server on a later day, and what is wrong is one clear error. Skipped where PyTorch is not installed
(tools/setup.sh --bench)."""

import contextlib
import csv
import gzip
import io
import json
import os
import shutil
import sys
import unittest

import numpy as np

try:
    import torch
    import tqdm  # noqa: F401
    import xxhash  # noqa: F401
except ImportError as missing:
    raise unittest.SkipTest(f"training needs {missing.name} (tools/setup.sh --bench)")

sys.path.insert(0, os.getcwd())

import harness  # noqa: E402
from homerank_eval import read_safetensors  # noqa: E402
from training import kuairand, kuairand_data  # noqa: E402

N_USERS, N_VIDEOS, N_A_DAY = 40, 60, 600
TRAIN_DAYS, VALID_DAY, LATER_DAY = "20220425..20220426", "20220427", "20220428"
STRANGER, NEW_VIDEO = 9000, 9001  # in the log, without a record


def write_csv(path, rows):
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def impressions(rng, day, users, videos):
    """Labels that a model can learn: even users like even videos."""
    rows = []
    for i in range(N_A_DAY):
        user, video, hour = int(rng.choice(users)), int(rng.choice(videos)), int(rng.integers(3))
        likely = 0.8 if user % 2 == video % 2 else 0.2
        labels = {name: int(rng.random() < likely) for name in kuairand_data.LABELS}
        rows.append({"user_id": user, "video_id": video, "date": day, "hourmin": 100 * hour, "time_ms": day * 1000 + i,
                     **labels, "play_time_ms": i, "tab": int(rng.integers(2))})
    return rows


def make_folder(folder):
    """A folder as prepare reads it: missing values, texts with commas, days in two files that overlap."""
    os.makedirs(folder)
    rng = np.random.default_rng(1)
    users, videos = range(N_USERS), range(N_VIDEOS)
    days = [impressions(rng, day, users, videos) for day in (20220425, 20220426, 20220427)]
    later = impressions(rng, 20220428, [*users, STRANGER], [*videos, NEW_VIDEO])
    write_csv(os.path.join(folder, "log_a.csv.gz"), sum(days, []))
    write_csv(os.path.join(folder, "log_b.csv.gz"), days[-1] + later)
    write_csv(os.path.join(folder, "videos.csv.gz"), [
        {"video_id": v, "author_id": "" if v == 3 else f"{7000 + v % 7}.0", "tag": "" if v == 4 else f"{v % 9},{v % 5}",
         "video_duration": "" if v == 5 else f"{1000 * v}.5", "music_type": "9.0", "upload_type": "Import"}
        for v in videos])
    write_csv(os.path.join(folder, "users.csv.gz"), [
        {"user_id": u, **{name: "(250,500]" if u % 3 else "" for name in kuairand_data.TEXT_FIELDS},
         **{name: "" if u == 7 else f"{u % 3}.0" for name in kuairand_data.NUMBER_FIELDS}} for u in users])
    write_csv(os.path.join(folder, "user_sequences.csv.gz"), [
        {"user_id": u, "history_len": u, "watch_seq": " ".join(str(v) for v in rng.integers(N_VIDEOS, size=u)),
         "like_seq": "", "long_watch_seq": "3 4 5" if u % 2 else ""} for u in users[1:]])


def run(*arguments):
    """The command's output."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        kuairand.main([str(a) for a in arguments])
    return output.getvalue()


def figures(output):
    """{task: (positives, AUC, GAUC)} of the table."""
    rows = [line.split() for line in output.splitlines()]
    return {row[0]: tuple(map(float, row[1:])) for row in rows if row and row[0] in kuairand_data.TASKS}


class Commands(harness.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        torch.set_num_threads(1)
        folder = harness.tempfile.TemporaryDirectory(prefix="homerank-training-")
        cls.addClassCleanup(folder.cleanup)
        cls.raw, cls.data = os.path.join(folder.name, "raw"), os.path.join(folder.name, "data")
        cls.models = os.path.join(folder.name, "models")
        cls.model = os.path.join(cls.models, "home", "1")
        make_folder(cls.raw)
        run("prepare", "--data", cls.raw, "--out", cls.data)
        cls.train_to(cls.model)

    @classmethod
    def train_to(cls, out, *more):
        return run("train", "--data", cls.data, "--days", TRAIN_DAYS, "--out", out, "--batch-size", 64, "--id-dim", 8,
                   "--epochs", 8, *more)

    def load_records(self):
        store = "lmdb:" + self.path("store")
        self.must_run("features", "load", "--store", store, "--in", os.path.join(self.data, "records.jsonl"))
        return store

    def fails(self, *arguments, says):
        """The command's one line of error, which holds the words."""
        with self.assertRaises(SystemExit) as caught, contextlib.redirect_stdout(io.StringIO()):
            kuairand.main([str(a) for a in arguments])
        message = str(caught.exception.code)
        self.assertTrue(message.startswith("kuairand: "), message)
        self.assertEqual(len(message.splitlines()), 1, message)
        for word in says:
            self.assertIn(word, message)

    # --- prepare ---------------------------------------------------------------------------------------------

    def test_every_log_is_read_and_a_row_in_two_of_them_counts_once(self):
        read = kuairand_data.Impressions(self.data, 0, 99999999)
        self.assertEqual(len(read), 4 * N_A_DAY)
        self.assertEqual(sorted(set(read.date)), [20220425, 20220426, 20220427, 20220428])
        self.assertTrue((np.diff(read.time_ms) >= 0).all())

    def test_records_hold_numbers_as_numbers_and_no_missing_values(self):
        users, items = kuairand.read_records(self.data)
        self.assertEqual(items["9"], {"author_id": 7002, "tag": [0, 4], "video_duration": 9000.5, "music_type": 9,
                                      "upload_type": "Import"})
        self.assertNotIn("author_id", items["3"])
        self.assertEqual(users["1"]["user_active_degree"], "(250,500]")
        self.assertEqual(users["1"]["long_tags"], [3, 3, 5, 0])
        self.assertNotIn("register_days", users["7"])
        self.assertNotIn("history", users["0"])

    def test_a_wrong_folder_is_one_clear_error(self):
        def corrupt(name, change):
            def apply(folder):
                path = os.path.join(folder, name)
                with open(path, "rb") as file:
                    data = file.read()
                with open(path, "wb") as file:
                    file.write(change(data))
            return apply

        def edit(name, old, new):
            return corrupt(name, lambda data: gzip.compress(gzip.decompress(data).replace(old, new, 1)))

        def drop(*names):
            return lambda folder: [os.remove(os.path.join(folder, name)) for name in names]

        cases = [
            (shutil.rmtree, ["videos.csv.gz"]),
            (drop("users.csv.gz"), ["users.csv.gz"]),
            (drop("log_a.csv.gz", "log_b.csv.gz"), ["expected log_*.csv.gz, found none"]),
            (edit("log_a.csv.gz", b"hourmin", b"hour"), ["log_a.csv.gz", "hourmin"]),
            (edit("log_b.csv.gz", b"\r\n", b"\r\n1,2,3\r\n"), ["log_b.csv.gz:2", "fields"]),
            (edit("log_b.csv.gz", b"20220427", b"today"), ["log_b.csv.gz:2", "today"]),
            (edit("videos.csv.gz", b"9.0", b"nan"), ["videos.csv.gz:2", "nan"]),
            (edit("user_sequences.csv.gz", b"3 4 5", b"3 x 5"), ["user_sequences.csv.gz:2", "'x'"]),
            (corrupt("log_a.csv.gz", lambda data: data[: len(data) // 2]), ["log_a.csv.gz", "gzip"]),
            (corrupt("users.csv.gz", lambda data: b"user_id\n"), ["users.csv.gz", "gzip"]),
        ]
        for i, (spoil, says) in enumerate(cases):
            with self.subTest(says=says):
                folder = self.path(str(i))
                shutil.copytree(self.raw, folder)
                spoil(folder)
                self.fails("prepare", "--data", folder, "--out", self.path("out"), says=says)

    def test_a_label_is_0_or_1(self):
        row = {name: "0" for name in [*kuairand_data.LOG_COLUMNS, *kuairand_data.LABELS]}
        kuairand_data.log_row(row)
        with self.assertRaisesRegex(ValueError, "is_like: expected 0 or 1, found 2"):
            kuairand_data.log_row({**row, "is_like": "2"})

    # --- train -----------------------------------------------------------------------------------------------

    def test_a_seed_decides_every_byte(self):
        self.train_to(self.path("same"), "--seed", 1)
        self.train_to(self.path("other"), "--seed", 2)

        def content(folder, name):
            with open(os.path.join(folder, name), "rb") as file:
                return file.read()

        self.assertEqual(sorted(os.listdir(self.path("same"))), ["config.json", "model.safetensors", "verify.jsonl"])
        for name in os.listdir(self.model):
            self.assertEqual(content(self.model, name), content(self.path("same"), name), name)
        self.assertNotEqual(content(self.model, "model.safetensors"), content(self.path("other"), "model.safetensors"))

    def test_training_does_not_see_the_days_it_is_judged_on(self):
        """With the labels of all other days turned round, the same model comes out."""
        spoiled = self.path("spoiled")
        shutil.copytree(self.data, spoiled)
        path = os.path.join(spoiled, "impressions.npz")
        with np.load(path) as file:
            columns = dict(file)
        columns["labels"][columns["date"] > 20220426] ^= 1
        np.savez_compressed(path, **columns)
        self.train_to(self.path("model"), "--data", spoiled)
        ours, theirs = (read_safetensors(os.path.join(folder, "model.safetensors"))
                        for folder in (self.model, self.path("model")))
        for name in ours:
            self.assertTrue(np.array_equal(ours[name], theirs[name]), name)

    def test_validation_keeps_the_best_epoch(self):
        output = self.train_to(self.path("model"), "--valid", VALID_DAY, "--epochs", 40, "--rate", 0.05)
        merits = [np.mean([float(x) for x in line.split()[3::2]]) for line in output.splitlines() if "valid AUC" in line]
        self.assertGreater(len(merits), 1)
        self.assertLess(len(merits), 40)
        self.assertEqual(max(merits), merits[-2])
        scored = figures(run("evaluate", "--data", self.data, "--model", self.path("model"), "--days", VALID_DAY))
        kept = np.mean([scored[task][1] for task in kuairand_data.TASKS[: kuairand_data.N_FREQUENT]])
        self.assertAlmostEqual(kept, merits[-2], delta=1e-4)

    def test_training_that_cannot_be_is_one_clear_error(self):
        out = self.path("model")
        train = ["train", "--data", self.data, "--out", out]
        self.fails(*train, "--days", TRAIN_DAYS, "--valid", "20220426", says=["--valid", "outside --days"])
        self.fails(*train, "--days", "20220501", says=["20220501", "found 20220425 to 20220428"])
        self.fails(*train, "--days", "20220425", "--batch-size", 601, says=["601", "found 600"])
        self.fails(*train, "--days", TRAIN_DAYS, "--batch-size", 64, "--rate", 1e30, says=["finite"])
        self.fails("train", "--data", self.raw, "--out", out, "--days", TRAIN_DAYS, says=["records.jsonl", "prepare"])
        self.assertFalse(os.path.exists(out))

    def test_days_are_a_day_or_a_range_in_order(self):
        self.assertEqual(kuairand.days("20220504"), (20220504, 20220504))
        self.assertEqual(kuairand.days("20220425..20220503"), (20220425, 20220503))
        for text in ("", "2022", "20220431", "20220425..", "..20220425", "20220426..20220425", "20220425-20220426"):
            with self.subTest(text), self.assertRaises(kuairand.argparse.ArgumentTypeError):
                kuairand.days(text)

    # --- evaluate and replay ---------------------------------------------------------------------------------

    def test_a_server_scores_a_later_day_as_training_does(self):
        """Users and videos without a record among them."""
        expected = figures(run("evaluate", "--data", self.data, "--model", self.model, "--days", LATER_DAY))
        self.assertGreater(expected["click"][1], 0.6)
        server = self.start_server("--models", self.models, "--store", self.load_records())
        found = figures(run("replay", "--target", server.target, "--data", self.data, "--days", LATER_DAY))
        self.assertEqual(list(found), kuairand_data.TASKS)
        for task, row in expected.items():
            np.testing.assert_allclose(found[task], row, atol=2e-5, err_msg=task)

    def test_requests_hold_each_impression_once(self):
        read = kuairand_data.Impressions(self.data, 20220428, 20220428)
        rows = []
        for at, request in kuairand.replay_requests(read):
            context = request["context"]
            self.assertEqual({(read.user[r], read.hour[r], read.tab[r]) for r in at},
                             {(int(request["user_id"]), context["hour"], context["tab"])})
            self.assertEqual([str(read.video[r]) for r in at], request["items"])
            rows += at
        self.assertEqual(sorted(rows), list(range(len(read))))

    def test_replay_says_what_the_store_lacks(self):
        server = self.start_server("--models", self.models, "--store", "none:")
        with contextlib.redirect_stderr(io.StringIO()) as errors:
            run("replay", "--target", server.target, "--data", self.data, "--days", LATER_DAY)
        n = len(list(kuairand.replay_requests(kuairand_data.Impressions(self.data, 20220428, 20220428))))
        self.assertIn(f"{n} requests answered; without a stored record: {n} requests' users, {N_A_DAY} items",
                      errors.getvalue())

    def test_a_server_that_cannot_answer_is_one_clear_error(self):
        redis = self.start_redis()
        server = self.start_server("--models", self.models, "--store", redis.uri())
        replay = ["replay", "--data", self.data, "--days", LATER_DAY, "--target", server.target]
        self.fails(*replay, "--model", "nobody", says=[server.target, "NOT_FOUND", "nobody"])
        redis.kill()
        self.fails(*replay, says=[server.target, "UNAVAILABLE"])
        server.terminate()
        self.fails(*replay, says=[server.target, "UNAVAILABLE"])

    def test_a_model_that_is_none_of_ours_is_one_clear_error(self):
        def spoiled(name, change):
            folder = self.path(name)
            shutil.copytree(self.model, folder)
            change(folder)
            return folder

        def rename_task(folder):
            path = os.path.join(folder, "config.json")
            with open(path, encoding="utf-8") as file:
                config = json.load(file)
            config["network"]["tasks"][0]["name"] = "clack"
            with open(path, "w", encoding="utf-8") as file:
                json.dump(config, file)

        cut = spoiled("cut", lambda folder: os.truncate(os.path.join(folder, "model.safetensors"), 5000))
        renamed = spoiled("renamed", rename_task)
        for model, says in ((self.path("none"), ["config.json"]), (cut, ["model.safetensors", "expected"]),
                            (renamed, ["model.safetensors", "tower.clack.0.weight"])):
            self.fails("evaluate", "--data", self.data, "--model", model, "--days", LATER_DAY, says=says)

    # --- the export ------------------------------------------------------------------------------------------

    def test_the_server_refuses_what_was_not_trained(self):
        """One weight, one batch statistic, one boundary of a bucket, one table's hashing: verify.jsonl tells."""
        def with_tensor(folder, name):
            path = os.path.join(folder, "model.safetensors")
            with open(path, "r+b") as file:
                n = int.from_bytes(file.read(8), "little")
                begin, _ = json.loads(file.read(n))[name]["data_offsets"]
                file.seek(8 + n + begin)
                values = np.frombuffer(file.read(4), "<f4") + np.float32(2)
                file.seek(8 + n + begin)
                file.write(values.tobytes())

        def with_config(folder, change):
            path = os.path.join(folder, "config.json")
            with open(path, encoding="utf-8") as file:
                config = json.load(file)
            change(config)
            with open(path, "w", encoding="utf-8") as file:
                json.dump(config, file)

        def move_boundaries(config):
            feature = next(f for f in config["features"] if f["kind"] == "bucket")
            feature["boundaries"] = [b + 5000 for b in feature["boundaries"]]

        def index_directly(config):
            config["tables"]["upload_type"]["index"] = "direct"

        self.must_run(*self.score(self.model))
        changes = [lambda f: with_tensor(f, "meta.watch.expert.0.weight"),
                   lambda f: with_tensor(f, "task.click.expert.0.norm.running_mean"),
                   lambda f: with_config(f, move_boundaries), lambda f: with_config(f, index_directly)]
        for i, change in enumerate(changes):
            with self.subTest(i):
                folder = self.path("home", str(10 + i))
                shutil.copytree(self.model, folder)
                change(folder)
                self.must_fail(*self.score(folder), says=["verify.jsonl:", "known-", "expected", "found"])

    def score(self, folder):
        with open(self.path("requests"), "w", encoding="utf-8") as file:
            file.write('{"user_id": "1", "item_ids": ["1"]}\n')
        return ("score", "--model", folder, "--store", "none:", "--in", self.path("requests"), "--out",
                self.path("answers"))

    def test_what_is_verified_has_unknown_ids_missing_values_and_long_lists(self):
        with open(os.path.join(self.model, "verify.jsonl"), encoding="utf-8") as file:
            requests = {line["request"]["request_id"]: line["request"] for line in map(json.loads, file)}
        users, items = kuairand.read_records(self.data)
        self.assertNotIn(requests["unknown-ids"]["user_id"], users)
        self.assertFalse(set(requests["unknown-ids"]["item_ids"]) & set(items))
        self.assertEqual(set(requests["missing-values"]["user_features"].values()), {None})
        limits = {f["name"]: f["max_length"] for f in kuairand_data.features_config()["features"] if f["kind"] == "ids"}
        for name in ("history", "long_history", "like_history", "long_tags"):
            self.assertGreater(len(requests["long-lists"]["user_features"][name]), limits[name])


if __name__ == "__main__":
    harness.main()
