"""Run by torchrun from test_exact_gradients: distils on two gloo processes and saves what the first one saw."""

import sys
from pathlib import Path

import torch
from accelerate import PartialState

from tests.pretraining.language_models import distil_language
from tests.training_rows import ALL_TERMS, augmented_rows, distil, pair_rows


def main() -> None:
    """Runs every split of the rows, one after the other."""
    output = Path(sys.argv[1])
    runs = {}
    for size in (70, 65):
        for batch_size, accumulation in ((16, 1), (8, 2)):
            runs[size, batch_size, accumulation] = distil(
                output.parent, pair_rows(size, unlabelled=5), batch_size, accumulation
            )
    runs["terms"] = distil(output.parent, pair_rows(65, unlabelled=5), 8, 2, terms=ALL_TERMS)
    runs["augmented"] = distil(output.parent, augmented_rows(65, unlabelled=5), 8, 2)
    runs["language"] = distil_language(output.parent, 4, 2)
    if PartialState().is_main_process:
        torch.save(runs, output)
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()


if __name__ == "__main__":
    main()
