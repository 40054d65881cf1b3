"""T Table 4: the NN on each set of MNIST-C, PLAIN, GAUSS and TRANSFER.

python -m benchmarks.paper.tibo_table4 [--scale smoke|cpu|full] [--normalise none|minmax|standard]
    [--methods PLAIN GAUSS TRANSFER SEPARATE JOINT] [--data-root DIR] [--out DIR] [--runs DIR]
"""

from benchmarks.paper.tibo_transfer import by_set

if __name__ == "__main__":
    by_set("tibo_table4", "NN", 4, __doc__)
