#!/usr/bin/env python3
"""Sends the same requests to Apache Kafka and to Ringtail and compares the answers, field by field.

Usage: oracle.py <Kafka's jars> <ringtail> <work folder> [case…]. Called by run.sh. `SHOW=1` prints every answer.
"""

import concurrent.futures
import json
import os
import signal
import sys
import time
import traceback

import brokers
import cases
import differences
from story import Story, Words, subject
from wire import schemas

LONGEST = 400  # characters of a value in a message
HERE = os.path.dirname(os.path.abspath(__file__))


def offered(broker, messages):
    """The versions that a broker names, by key."""
    lines = []
    story = Story("versions", ("127.0.0.1", broker.port), 0, {}, messages, 0, Words(0, 0), lines)
    answer = story.ask("", "ApiVersions", 0)
    story.end()
    return {api["ApiKey"]: (api["MinVersion"], api["MaxVersion"]) for api in answer["ApiKeys"]}


def tell(broker, chosen, common, messages, began_ms, coordinated):
    """All stories of one world with one broker, in order."""
    lines, words = [], Words(began_ms, broker.port)
    if coordinated:
        first = Story("first", ("127.0.0.1", broker.port), "low", common, messages, began_ms, words, lines)
        first.coordinated()
        first.end()
    for case in chosen:
        for level in case.levels:
            story = Story(case.name, ("127.0.0.1", broker.port), level, common, messages, began_ms, words, lines)
            try:
                case.run(story)
            except Exception as why:  # A broker that answers otherwise may break the story: a difference like others.
                story.note("the story ends early", f"{type(why).__name__}: {why}")
                if os.environ.get("SHOW"):
                    traceback.print_exc()
            story.end()
            if os.environ.get("SHOW"):
                print(f"  {broker.name} {case.name}/{level}: {time.time() - began_ms / 1000:.1f}s", flush=True)
    return lines


def flat(value, path=""):
    """{path: leaf} of an answer. Structs of a list are named by what they are about, if that tells them apart."""
    if isinstance(value, dict) and value:
        return {key: leaf for name, inner in value.items() for key, leaf in flat(inner, f"{path}.{name}").items()}
    if isinstance(value, list) and value:
        names = [subject(inner) for inner in value]
        if not all(names) or len(set(names)) < len(names):
            names = range(len(value))
        return {key: leaf for name, inner in zip(names, value) for key, leaf in flat(inner, f"{path}[{name}]").items()}
    return {path: value}


def compare(theirs, ours):
    """Differences as (case/level, label, path, Kafka's, Ringtail's)."""
    found, mine = [], {}
    for case, label, words in ours:
        mine.setdefault((case, label), []).append(words)
    for case, label, words in theirs:
        left = mine.get((case, label))
        if not left:
            found.append((case, label, "", words, "<never asked>"))
            continue
        a, b = flat(words), flat(left.pop(0))
        for path in sorted(a.keys() | b.keys()):
            one, other = a.get(path, "<absent>"), b.get(path, "<absent>")
            if one != other or type(one) is not type(other):
                found.append((case, label, path, one, other))
    for (case, label), left in mine.items():
        found.extend((case, label, "", "<never asked>", words) for words in left)
    return found


def main():
    jars, binary, work, *wanted = sys.argv[1:]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    began = time.time()
    messages = schemas(brokers.client_jar(jars))
    asked = different = 0
    used = set()
    for world, settings in cases.WORLDS.items():
        chosen = [case for case in cases.all_cases() if case.world == world and (not wanted or case.name in wanted)]
        if not chosen:
            continue
        pair = []
        try:
            pair.append(brokers.Kafka(os.path.join(work, f"kafka-{world}"), settings, jars, f"{HERE}/log4j2.properties"))
            pair.append(brokers.Ringtail(os.path.join(work, f"ringtail-{world}"), settings, binary))
            for broker in pair:
                broker.wait()
            print(f"{world}: both run after {time.time() - began:.1f}s", flush=True)
            kafka_has, ringtail_has = (offered(broker, messages) for broker in pair)
            common = {key: (max(kafka_has[key][0], ringtail_has[key][0]), min(kafka_has[key][1], ringtail_has[key][1]))
                      for key in kafka_has.keys() & ringtail_has.keys()}
            common[0] = (3, common[0][1])  # Produce names 0 and refuses it.
            began_ms = int(time.time() * 1000)
            with concurrent.futures.ThreadPoolExecutor(2) as pool:
                told = [pool.submit(tell, broker, chosen, common, messages, began_ms, world != "fresh") for broker in pair]
                theirs, ours = (one.result() for one in told)
        finally:
            codes = [broker.stop() for broker in pair]
        if codes[1] != 0:
            print(f"{world}: ringtail ended with {codes[1]}; see {pair[1].log}")
            different += 1
        asked += len(theirs)
        if os.environ.get("SHOW"):
            for side, lines in (("kafka", theirs), ("ringtail", ours)):
                with open(os.path.join(work, f"{side}-{world}.txt"), "w") as out:
                    out.writelines(f"{case} · {label}\n  {json.dumps(words)}\n" for case, label, words in lines)
        unexpected = {}
        for difference in compare(theirs, ours):
            row = differences.row_of(difference)
            if row is None:
                case, label, path, one, other = difference
                case, level = case.split("/")
                label, version = label.rpartition(" v")[::2] if " · " in label else (label, "")
                plain = [text.replace(f"-{level}", "") for text in (path, json.dumps(one), json.dumps(other))]
                where = (case, label, *plain)
                unexpected.setdefault(where, []).append(f"{level}{version and '=v'}{version}")
            else:
                used.add(row)
        different += len(unexpected)
        last = None
        for (case, label, path, one, other), levels in unexpected.items():
            if (case, label) != last:
                print(f"DIFFERS {case} · {label}")
            last = (case, label)
            print(f"    {path or 'answer'}: kafka {one[:LONGEST]}, ringtail {other[:LONGEST]} ({', '.join(levels)})")
    for row in differences.unneeded(used) if not wanted else ():
        different += 1
        print(f"NO LONGER DIFFERS: {row}: take the row out")
    print(f"{asked} answers compared, {different} unexpected differences, {time.time() - began:.1f}s")
    return 1 if different or not asked else 0


if __name__ == "__main__":
    sys.exit(main())
