"""Orders that survive a kill at any step. Run it: `python -m examples.order_fulfilment --kill-at charge`, then again without."""
