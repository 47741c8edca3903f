"""A loop like a notebook's: it runs one cell after another in a session, streams what the agent says, and interrupts a
cell that takes too long, or at Ctrl-C. The session keeps its variables from cell to cell.

    python notebook.py              # reads cells from standard input, one a line
    python notebook.py --demo       # runs three cells
"""

from __future__ import annotations

import sys
from typing import Iterable

import turnwise


class Interpreter(turnwise.Agent):
    """Runs cells. Its variables live on the thread of its session."""

    def __init__(self, spec: turnwise.Spec) -> None:
        super().__init__(spec)
        self.variables: dict[str, object] = {}

    def run_turn(self, prompt: str, turn: turnwise.Context) -> str:
        def show(value: object) -> None:
            turn.emit_text(f"{value}\n")  # raises `Cancelled` if the cell is to stop

        scope = self.variables
        scope.update(show=show, sleep=turn.sleep, ask=turn.request_input)
        try:
            value = eval(prompt, scope)
        except SyntaxError:
            exec(prompt, scope)
            return ""
        return "" if value is None else repr(value)


def run_cell(session: turnwise.Session, cell: str, timeout: float) -> None:
    """Runs a cell. Ctrl-C interrupts the cell, and not the notebook."""
    try:
        result = session.run(
            cell,
            timeout=timeout,
            on_event=lambda event: print(event["delta"], end="", flush=True) if event["type"] == "text_delta" else None,
            on_input=lambda request: input(f"{request['message']} "),
        )
    except turnwise.TurnFailed as failure:
        print(f"[{failure.cancel_reason}]" if failure.cancel_reason else f"[failed] {failure}")
    except KeyboardInterrupt:
        print("[interrupted]")
        session.wait_idle()
    else:
        if result.text:
            print(f"[{result.turn_id}] {result.text}")


DEMO = [
    "x = [n * n for n in range(5)]",
    "[show(n) for n in x] and sum(x)",
    "[(show(f'waiting with {len(x)} numbers'), sleep(None))]",  # until its timeout interrupts it
    "1 / 0",
    "len(x)",  # the session goes on, with its variables
]


def main(cells: Iterable[str], timeout: float) -> None:
    with turnwise.Service(Interpreter, max_sessions=1) as service:
        session = service.open()
        for cell in cells:
            run_cell(session, cell.rstrip("\n"), timeout)


if __name__ == "__main__":
    if "--demo" in sys.argv:
        main(DEMO, timeout=0.5)
    else:
        main(sys.stdin, timeout=60.0)
