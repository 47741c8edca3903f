"""The notebook, as a program: its cells, and Ctrl-C."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

NOTEBOOK = pathlib.Path(__file__).parents[2] / "notebook.py"


def test_c99_the_notebook_streams_and_interrupts():
    ended = subprocess.run([sys.executable, NOTEBOOK, "--demo"], capture_output=True, text=True, timeout=120)
    lines = ended.stdout.splitlines()
    assert lines[:8] == ["0", "1", "4", "9", "16", "[2] 30", "waiting with 5 numbers", "[deadline_exceeded]"]
    assert "ZeroDivisionError: division by zero" in lines[8] and lines[9:] == ["[5] 5"]
    assert (ended.returncode, ended.stderr) == (0, "")


def test_c99_ctrl_c_interrupts_a_cell_and_not_the_notebook():
    notebook = subprocess.Popen(
        [sys.executable, NOTEBOOK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        notebook.stdin.write("[show('begun'), sleep(None)]\n1 + 1\n")
        notebook.stdin.flush()
        assert notebook.stdout.readline() == "begun\n"
        notebook.send_signal(signal.SIGINT)
        output, errors = notebook.communicate(timeout=60)
    finally:
        notebook.kill()
    assert (output, errors, notebook.returncode) == ("[interrupted]\n[2] 2\n", "", 0)
