"""Entry point: `python train.py model=membership`."""

from conf.entry import train

if __name__ == "__main__":
    train()
