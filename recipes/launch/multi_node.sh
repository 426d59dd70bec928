#!/usr/bin/env bash
# Several machines. The same command on each, which wait for one another at HEAD_HOST, one of them:
#
#   NUM_NODES=2 HEAD_HOST=node0 recipes/launch/multi_node.sh RECIPE [SECTION.KEY=VALUE ...]
#
# The run folder and teacher.cache_dir must be on a file system that all machines share. When a process or a machine
# fails, all are started again, up to three times, and go on from the last whole checkpoint if the recipe keeps any.
# A new store for each start: in the one that torch 2.13 keeps, a restarted process may read the address of a dead one.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun --nnodes "${NUM_NODES:?how many machines}" --nproc-per-node "${NUM_PROCESSES:-gpu}" \
    --rdzv-backend c10d --rdzv-endpoint "${HEAD_HOST:?the name of one of the machines}:${HEAD_PORT:-29400}" \
    --rdzv-id "${RUN_ID:-distilbert_kd}" --max-restarts "${MAX_RESTARTS:-3}" --shutdown-timeout 120 \
    -m distilbert_kd run "$@"
