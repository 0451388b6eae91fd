"""Arrays in files, read a part at a time, and results that appear in a file all at once.

    array_file.py   one array in a file: its shape, its dtype, and any range of its bytes on request
    npy.py          NumPy's `.npy`, alone or as a member of a `.npz`
    npz.py          NumPy's `.npz`: a zip archive of `.npy` members
    safetensors.py  `.safetensors`: a JSON header and raw arrays, bfloat16 among them
    opening.py      FILE or FILE::NAME -> the array, whichever format the file has
    results.py      atomic writing, never over an existing file unless told so

A file is not to be trusted. Whatever its header claims, memory stays bounded, nothing in it is executed (no
pickle is ever loaded), no map is made (a file that shrinks under a map kills the process), and what is wrong
becomes a `FileError` of one line. Logits and losses are not known here.
"""
