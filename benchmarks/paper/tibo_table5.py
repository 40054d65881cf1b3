"""T Table 5: the SVM on each set of MNIST-C, PLAIN, GAUSS and TRANSFER.

python benchmarks/paper/tibo_table5.py [--scale smoke|cpu|full] [--data-root DIR] [--out DIR] [--runs DIR]
"""

from tibo_transfer import by_set

if __name__ == "__main__":
    by_set("tibo_table5", "SVM", 5, __doc__.splitlines()[0])
