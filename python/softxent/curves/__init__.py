"""What the rows of an evaluation look like together: the data behind pictures, gathered batch by batch.

    rows.py          which rows count, and how sure the model was of its choice
    distribution.py  how many rows have which loss: percentiles and histograms
    calibration.py   how often the model is right when it is so sure
    positions.py     the mean loss by position in a sequence
    temperatures.py  the loss at other temperatures

Each is a few numbers however many rows there are, filled by `add`. They know the results of
`softxent.evaluate` and NumPy; files and pictures are not known here.
"""
