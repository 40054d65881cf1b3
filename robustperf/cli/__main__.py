"""`python -m robustperf.cli`, for launchers: `torchrun --nproc-per-node=2 -m robustperf.cli train ...`."""

from robustperf.cli import main

if __name__ == "__main__":
    main()
