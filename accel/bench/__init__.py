"""How fast the kernels are, against named rivals in the same run: `python -m accel.bench`, `interconn bench kernels`.

Nothing here serves a computation, and nothing else of the package imports it. What a rival is and how it is asked
stands in `rivals`; what is measured in `numbers`, `points` and `arrays`; what is aimed at in `targets`.
"""
