"""T Table 2: averages over MNIST-C, NN and SVM, PLAIN, GAUSS and TRANSFER.

    python -m benchmarks.paper.tibo_table2 [--scale smoke|cpu|full] [--normalise none|minmax|standard]
        [--classifiers NN SVM] [--methods PLAIN GAUSS TRANSFER SEPARATE JOINT]
        [--data-root DIR] [--out DIR] [--runs DIR]

"average %" is over sixteen sets, as in T, "corrupted %" over the fifteen corruptions without identity. The clean
accuracy of SEPARATE is that of the pair trained with identity as its shift, as in Tables 4 and 5. T's figures are the
averages of those tables, since Table 2 is hardly legible.
"""

from __future__ import annotations

import statistics

from benchmarks.common.options import parse
from benchmarks.paper.tibo_transfer import (
    CLASSIFIERS,
    CORRUPTIONS,
    SELECTIONS,
    Evaluation,
    averages,
    paper_corrupted,
    paper_of,
    parser,
    report,
)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--classifiers", nargs="+", default=list(CLASSIFIERS), choices=CLASSIFIERS)
    arguments = parse(options, selections=("classifiers", *SELECTIONS))
    found = Evaluation(arguments).run(arguments.classifiers)
    table = report("tibo_table2", "T Table 2, MNIST-C", arguments)
    for kind, of_columns in found.items():
        plain = statistics.mean(averages(of_columns["PLAIN"])) if "PLAIN" in of_columns else None
        printed = paper_of(kind, "PLAIN")
        for column, of_sets in of_columns.items():
            values, paper = averages(of_sets), paper_of(kind, column)
            spread = {"deviation": statistics.stdev(values)} if len(values) > 1 else {}
            table.add(case=f"{kind}, {column}", **{"average %": statistics.mean(values)}, **spread, **{
                "corrupted %": statistics.mean(averages(of_sets, CORRUPTIONS)),
                "brightness %": statistics.mean(of_sets["brightness"]),
                "fog %": statistics.mean(of_sets["fog"]),
                "above PLAIN": None if plain is None else statistics.mean(values) - plain,
                "clean %": statistics.mean(of_sets["identity"]),
                "paper %": paper,
                "paper corrupted %": paper_corrupted(kind, column),
                "paper above PLAIN": None if paper is None else paper - printed,
                "paper clean %": paper_of(kind, column, "identity"),
                "paper brightness %": paper_of(kind, column, "brightness"),
                "paper fog %": paper_of(kind, column, "fog"),
            })  # fmt: skip
    table.show(bars=("case", "average %"))


if __name__ == "__main__":
    main()
