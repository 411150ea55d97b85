"""tools/bundle.sh: what it packs starts with nothing but itself, and measures the end-to-end path."""

import os
import re
import subprocess
import sys
import tarfile
import tempfile
import unittest

import harness

SHELL_ALONE = {"PATH": "/usr/bin:/bin"}


def run(*command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
                          timeout=5 * harness.DEADLINE_S, **options)
    if done.returncode != 0:
        raise AssertionError(f"{command} exits with {done.returncode}: {done.stdout}")
    return done.stdout


class Bundle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="homerank-bundle-")
        cls.addClassCleanup(cls.scratch.cleanup)
        out = os.path.join(cls.scratch.name, "small.tar.gz")
        run(os.path.join(harness.ROOT, "tools", "bundle.sh"), "--binary", harness.binary(), "--workload", "tiny",
            "--users", "50", "--items", "200", out)
        cls.root = os.path.join(cls.scratch.name, "root")
        with tarfile.open(out) as tar:
            tar.extractall(cls.root)
        cls.bundle = os.path.join(cls.root, "homerank-bundle")

    def test_every_library_comes_from_the_bundle(self):
        lib = os.path.join(self.bundle, "lib")
        listed = run(os.path.join(lib, "loader"), "--library-path", lib, "--list", os.path.join(self.bundle, "bin", "homerank"),
                     env={})
        paths = re.findall(r"=> (/\S+)", listed)
        self.assertGreater(len(paths), 10)
        # The loader itself is listed by the name that the binary asks for, but is the one that runs.
        outside = [p for p in paths if not p.startswith(lib) and "ld-linux" not in p]
        self.assertEqual(outside, [])

    def test_it_starts_where_nothing_else_is(self):
        # A user namespace of its own lets anybody change the root; where that is not allowed, root may.
        inside = ["/homerank-bundle/lib/loader", "--library-path", "/homerank-bundle/lib", "/homerank-bundle/bin/homerank"]
        for enter in (["/usr/sbin/chroot", self.root], ["unshare", "--map-root-user", "/usr/sbin/chroot", self.root]):
            if subprocess.run([*enter, *inside, "--version"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              check=False).returncode == 0:
                break
        else:
            if os.geteuid() != 0:
                self.skipTest("this user may not change the root")
        self.assertRegex(run(*enter, *inside, "--version", env={}), "^homerank ")
        self.assertIn("experts", run(*enter, *inside, "inspect", "/homerank-bundle/models/tiny/1", env={}))

    def test_it_measures_the_end_to_end_path(self):
        said = run(os.path.join(self.bundle, "measure"), "--seconds", "1", "--in-flight", "2", "--size", "20", "--threads", "1",
                   env=SHELL_ALONE, cwd="/")
        self.assertIn("backend=", said)
        for part in ("A lone caller", "2 calls at all times", "calls a second"):
            self.assertIn(part, said)
        self.assertEqual(len(re.findall("^answered ", said, re.MULTILINE)), 3, said)

    def test_wrong_use_is_said(self):
        done = subprocess.run([os.path.join(harness.ROOT, "tools", "bundle.sh"), "--workload", "base", "bundle.zip"],
                              stderr=subprocess.PIPE, text=True, check=False)
        self.assertEqual(done.returncode, 2)
        self.assertIn("expected a name that ends in .tar.gz, found bundle.zip", done.stderr)


if __name__ == "__main__":
    sys.exit(unittest.main())
