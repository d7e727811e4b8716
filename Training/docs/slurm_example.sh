#!/bin/bash
# Two nodes of four GPUs each; sbatch Training/docs/slurm_example.sh
# Slurm's time limit sends SIGTERM first (--signal): the run saves, and the job puts itself back into the queue.
#SBATCH --job-name=ich-scnet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --open-mode=append

set -u
CACHE=${CACHE:?folder of preprocessed cases}
OUT=${OUT:-runs/ich_scnet-paper}
CONFIG=${CONFIG:-ich_scnet/paper}
# global batch = micro_batch_size x this x processes; 2 x 2 x 8 is the paper's 32, for which ich_scnet/paper has 4 on 4.
ACCUMULATION=${ACCUMULATION:-2}

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
resume=()
ls "$OUT"/checkpoints/step-*.pt >/dev/null 2>&1 && resume=(--resume)

code=0
srun torchrun \
  --nnodes="$SLURM_JOB_NUM_NODES" --nproc_per_node="$SLURM_GPUS_ON_NODE" \
  --rdzv_id="$SLURM_JOB_ID" --rdzv_backend=c10d --rdzv_endpoint="$head_node:29500" \
  -m Training.train "$CONFIG" data.cache="$CACHE" data.workers=7 \
  loop.gradient_accumulation_steps="$ACCUMULATION" --out "$OUT" ${resume[@]+"${resume[@]}"} || code=$?

# results.json says how it ended: "finished", "early stop", "time up", "terminated" or "failed"; "running": killed.
if grep -qs '"status": "terminated"' "$OUT/results.json"; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
