"""`softxent score`: the loss of logits on disk, of any size, in one read and little memory.

    chunks.py    files -> chunks of rows, which a few threads read and work on, each on its own
    request.py   what is asked for: the files and the options, opened and checked
    rows.py      what the logits of a chunk say about its rows
    teacher.py   how far the model is from another one, row by row
    result.py    what came out, as a dict for JSON and as a table for people
    per_token.py what is known of each row, into a file as the rows pass
    scoring.py   the meeting place: what the rows of all chunks add up to
    progress.py  the bar; the only file that knows rich

Pictures are `softxent.plots`' affair, and what stands on the command line is the command line's.
"""
