"""`softxent bench`: how near this machine's memory the functions come, and how far ahead of others.

    limits.py       what NumPy's simplest loops reach on all threads: reading every logit once, copying them
    contestants.py  the operations, and how each library that is installed computes them
    rounds.py       everything once a round, in turn; checked before it is timed
    report.py       the table, the JSON, and the bars

A quick look, on any installation. The measurements that the project quotes, with limits in C and a record,
are the checkout's `make bench`.
"""
