"""What all benchmarks share: timing, options, reports, tables, the description of the machine, a trained classifier."""
