"""Logs in glog's form, compared line by line."""

import re

PREFIX = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d{6} +\d+ \S+:\d+\] ")
NUMBER = re.compile(r"(?<![\w#])\d+(?:\.\d+)?(?:e[+-]\d+)?")
SPEED = re.compile(r" \(\S+ iter/s, \S+s/\d+ iters\)")


def messages(log: str) -> list[tuple[str, list[float]]]:
    """A log's lines without their prefixes and speeds: each one's words, and the numbers among them."""
    found = []
    for line in log.splitlines():
        message = SPEED.sub("", PREFIX.sub("", line))
        found.append((NUMBER.sub("N", message).rstrip(), [float(value) for value in NUMBER.findall(message)]))
    return found
