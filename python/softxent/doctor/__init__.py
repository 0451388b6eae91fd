"""`softxent doctor`: what the package runs on, and whether it is right there.

    self_test.py    every function against the reference, on the instruction set that is in use: also a
    program levels.py       that program once for every instruction set, each in a process of its own
    report.py       all that there is to say about this installation, and whether it is well

An instruction set is chosen when the package is imported, hence the processes.
"""
