"""A soak of some seconds: see soak.py, which runs for as long as one likes."""

import os
import unittest

import soak

SECONDS = int(os.environ.get("HOMERANK_SOAK_SECONDS", "20"))


class ShortSoak(unittest.TestCase):
    def test_everything_at_once_for_a_while(self):
        tally = soak.soak(SECONDS, memory=False)
        self.assertEqual(tally.wrong, [])
        for what in ("answers checked", "stale answers checked", "answers without the store checked", "calls given up", "connections dropped",
                     "versions", "versions broken", "Redis restarts", "loaded OK"):
            self.assertGreater(tally.counts[what], 0, what)


if __name__ == "__main__":
    unittest.main()
