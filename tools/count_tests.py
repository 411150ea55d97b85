#!/usr/bin/env python3
"""Counts the test cases of `bazel test` runs: cmocka cases and Python unittest cases, from the tests' logs.

    tools/count_tests.py EVENTS.json...    (of --build_event_json_file)

A target whose log has no such counts is one case. A target that failed, timed out or was not built adds at least
one failure, whatever its log says. Prints the failed targets, then "N passed, N failed, N skipped"; the exit
code is 1 where something failed or nothing passed.
"""
import json
import re
import sys
import urllib.parse
import urllib.request

CMOCKA = re.compile(r"^\[  (PASSED |FAILED |SKIPPED)\s*\] (\d+) test\(s\)", re.MULTILINE)
UNITTEST = re.compile(r"^Ran (\d+) tests? in .*\n\n(OK|FAILED)(?: \((.*)\))?$", re.MULTILINE)


def count_log(text):
    """(passed, failed, skipped) of one test's log, summed over the groups in it; None where it has no counts."""
    counts = {"PASSED": 0, "FAILED": 0, "SKIPPED": 0}
    found = False
    for word, number in CMOCKA.findall(text):
        counts[word.strip()] += int(number)
        found = True
    for ran, _, details in UNITTEST.findall(text):
        parts = {key: int(value) for key, value in re.findall(r"(failures|errors|skipped|unexpected successes)=(\d+)", details)}
        skipped = parts.get("skipped", 0)
        failed = sum(value for key, value in parts.items() if key != "skipped")
        counts["SKIPPED"] += skipped
        counts["FAILED"] += failed
        counts["PASSED"] += max(0, int(ran) - skipped - failed)
        found = True
    return (counts["PASSED"], counts["FAILED"], counts["SKIPPED"]) if found else None


def read_log(outputs):
    for output in outputs:
        if output.get("name") == "test.log" and output.get("uri", "").startswith("file://"):
            path = urllib.request.url2pathname(urllib.parse.urlsplit(output["uri"]).path)
            try:
                with open(path, encoding="utf-8", errors="replace") as log:
                    return log.read()
            except OSError:
                return ""
    return ""


def count_target(results):
    """(passed, failed, skipped) over the shards and runs of one target; results are (status, log)."""
    total = [0, 0, 0]
    for status, log in results:
        passed, failed, skipped = count_log(log) or (1, 0, 0)
        if status not in ("PASSED", "FLAKY") and failed == 0:
            passed, failed = max(0, passed - 1), 1
        total = [a + b for a, b in zip(total, (passed, failed, skipped))]
    return total


def read_events(path):
    """{label: [(status, log)]} of the tests, and the labels of targets that were not built.

    Of a test that was tried again its last attempt counts.
    """
    last, results, broken = {}, {}, set()
    with open(path, encoding="utf-8") as events:
        for line in events:
            event = json.loads(line)
            identity = event.get("id", {})
            if "testResult" in identity and "testResult" in event:
                result, test = event["testResult"], identity["testResult"]
                key, attempt = (test["label"], test.get("run", 0), test.get("shard", 0)), test.get("attempt", 0)
                if attempt >= last.get(key, (0,))[0]:
                    last[key] = attempt, result.get("status", "NO_STATUS"), result.get("testActionOutput", [])
            elif "targetCompleted" in identity and not event.get("completed", {}).get("success", False):
                broken.add(identity["targetCompleted"]["label"])
    for (label, _, _), (_, status, outputs) in last.items():
        results.setdefault(label, []).append((status, read_log(outputs)))
    return results, broken - set(results)


def main():
    total = [0, 0, 0]
    for path in sys.argv[1:]:
        results, broken = read_events(path)
        for label, target_results in sorted(results.items()):
            counts = count_target(target_results)
            total = [a + b for a, b in zip(total, counts)]
            if counts[1]:
                print(f"failed: {label} ({counts[1]} of {sum(counts)})")
        for label in sorted(broken):
            print(f"failed: {label} (not built)")
            total[1] += 1
    print(f"{total[0]} passed, {total[1]} failed, {total[2]} skipped")
    return 1 if total[1] or not total[0] else 0


if __name__ == "__main__":
    sys.exit(main())
