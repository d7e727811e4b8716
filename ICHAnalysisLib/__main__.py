"""`python -m ICHAnalysisLib` is the command `ich-analysis`."""

from ICHAnalysisLib.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
