"""What a turn and an event cost through the Python package: ``python bench.py``. Each figure is the median of rounds."""

from __future__ import annotations

import statistics
import sys
import time
from typing import Callable

import turnwise


def timed(calls: int, call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - begin) / calls * 1e6


def run(prompt: str, turn: turnwise.Context) -> str:
    if prompt == "events":
        for _ in range(1000):
            turn.emit_text("piece")
    return prompt


def main() -> None:
    rounds, turns = (1, 10) if "--quick" in sys.argv else (21, 1000)
    with turnwise.Service(turnwise.agent_fn(run)) as service:
        session = service.open()
        turn = statistics.median(timed(turns, lambda: session.run("hello")) for _ in range(rounds))
        stream = statistics.median(timed(turns // 100 + 1, lambda: list(session.stream("events"))) for _ in range(rounds))
    print(f"a turn, round trip: Python {turn:.1f} µs")
    print(f"an event of a stream: Python {stream / 1000:.2f} µs")


if __name__ == "__main__":
    main()
