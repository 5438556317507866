# shellcheck shell=bash
# Settings of your cluster: the only file to edit. Every job sources it; source it yourself before
# you submit, so that sbatch has account and partition:
#
#     source slurm/site.sh && sbatch --nodes=2 --gres=gpu:4 slurm/train.sh ...

# Partition and account. sbatch reads these; flags of sbatch override them.
# export SBATCH_PARTITION=gpu
# export SBATCH_ACCOUNT=my-project
# export SBATCH_QOS=normal

# The environment of a job. It must exist on every node.
# module load cuda
# source /shared/envs/hnc_ds/bin/activate
if [[ -f .venv/bin/activate && -z ${VIRTUAL_ENV:-} ]]; then source .venv/bin/activate; fi

# A container for every task; it must contain hnc_ds and mount this folder.
# shellcheck disable=SC2034 # job.sh reads it
IN_CONTAINER=()
# IN_CONTAINER=(apptainer exec --nv --bind "$PWD" --pwd "$PWD" /shared/images/hnc_ds.sif)

# Disks. Keep models and compiled operators on a shared disk, or every node fetches its own. Shards
# named by a URL (file:///shared/..., s3://...) are cached on each node's own disk.
# export HF_HOME=/shared/$USER/huggingface TORCH_EXTENSIONS_DIR=/shared/$USER/torch_extensions
# export HNC_DS_CACHE=/local/$USER/hnc_ds HNC_DS_CACHE_GB=200

# The network between nodes, if the right interface is not found.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
# export NCCL_DEBUG=WARN
