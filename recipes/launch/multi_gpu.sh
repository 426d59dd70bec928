#!/usr/bin/env bash
# All GPUs of this machine, started again up to three times after a fault:
#
#   recipes/launch/multi_gpu.sh RECIPE [SECTION.KEY=VALUE ...]
#
# On CPUs: NUM_PROCESSES=2 recipes/launch/multi_gpu.sh RECIPE
# A restart runs the same command again, which goes on from the last whole checkpoint if the recipe keeps any. torchrun
# restarts after any exit code but 0, and ends with 1 whatever the code was: its last lines name it, with the rank.
# A new store for each start: in the one that torch 2.13 keeps, a restarted process may read the address of a dead one.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun --standalone --nproc-per-node "${NUM_PROCESSES:-gpu}" --max-restarts "${MAX_RESTARTS:-3}" \
    --shutdown-timeout 120 -m distilbert_kd run "$@"
