"""T Table 2: averages over MNIST-C, NN and SVM, PLAIN, GAUSS and TRANSFER.

    python -m benchmarks.paper.tibo_table2 [--scale smoke|cpu|full] [--data-root DIR] [--out DIR] [--runs DIR]

"average %" is over sixteen sets, as in T, "corrupted %" over the fifteen corruptions without identity. The clean
accuracy of SEPARATE is that of the pair trained with identity as its shift, as in Tables 4 and 5. T's figures are the
averages of those tables, since Table 2 is hardly legible.
"""

from __future__ import annotations

import statistics

from benchmarks.common.options import parse
from benchmarks.common.report import Report
from benchmarks.paper.tibo_transfer import (
    CLASSIFIERS,
    CORRUPTIONS,
    Evaluation,
    averages,
    paper_corrupted,
    paper_of,
    parser,
)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--classifiers", nargs="+", default=list(CLASSIFIERS), choices=CLASSIFIERS)
    arguments = parse(options, selections=("classifiers",))
    evaluation = Evaluation(arguments)
    report = Report("tibo_table2", f"T Table 2, MNIST-C, {evaluation.scale}", arguments.output)
    for kind, of_columns in evaluation.run(arguments.classifiers).items():
        plain, printed = statistics.mean(averages(of_columns["PLAIN"])), paper_of(kind, "PLAIN")
        for column, of_sets in of_columns.items():
            values, paper = averages(of_sets), paper_of(kind, column)
            spread = {"deviation": statistics.stdev(values)} if len(values) > 1 else {}
            report.add(case=f"{kind}, {column}", **{"average %": statistics.mean(values)}, **spread, **{
                "corrupted %": statistics.mean(averages(of_sets, CORRUPTIONS)),
                "above PLAIN": statistics.mean(values) - plain,
                "clean %": statistics.mean(of_sets["identity"]),
                "paper %": paper,
                "paper corrupted %": paper_corrupted(kind, column),
                "paper above PLAIN": None if paper is None else paper - printed,
                "paper clean %": paper_of(kind, column, "identity"),
            })  # fmt: skip
    report.show(bars=("case", "average %"))


if __name__ == "__main__":
    main()
