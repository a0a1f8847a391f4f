"""Entry point: `python inference/predict.py predict=survey|lenses|halos`."""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python put this folder first; its modules would hide packages of the same name.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from conf.entry import predict

main = predict

if __name__ == "__main__":
    main()
