"""Implementations of the loss on rows: one module each, none of which knows another."""

import torch

# The arithmetic's type, and how many of it hold what forward saves of a row for backward: six
# numbers and an int64, RowStats in csrc/pclc_row.h.
ARITHMETIC = {
    torch.float32: (torch.float32, 8),
    torch.bfloat16: (torch.float32, 8),
    torch.float16: (torch.float32, 8),
    torch.float64: (torch.float64, 7),
}
