# shellcheck shell=bash
# What is of your cluster: edit this, and nothing else. Every job reads it; read it yourself
# before you submit, so that sbatch knows who pays and where:
#
#     source slurm/site.sh && sbatch --nodes=2 --gres=gpu:4 slurm/train.sh ...

# Who pays, and where it runs. sbatch reads these; flags of sbatch override them.
# export SBATCH_PARTITION=gpu
# export SBATCH_ACCOUNT=my-project
# export SBATCH_QOS=normal

# The environment of a job. It must be found on every node.
# module load cuda
# source /shared/envs/hnc_ds/bin/activate
if [[ -f .venv/bin/activate && -z ${VIRTUAL_ENV:-} ]]; then source .venv/bin/activate; fi

# A container around every task, which must hold hnc_ds and see this folder.
# shellcheck disable=SC2034 # job.sh reads it
IN_CONTAINER=()
# IN_CONTAINER=(apptainer exec --nv --bind "$PWD" --pwd "$PWD" /shared/images/hnc_ds.sif)

# Disks. Models and compiled operators lie on a shared one, or every node fetches its own; shards
# that are named by a URL (file:///shared/..., s3://...) are copied to each node's own disk.
# export HF_HOME=/shared/$USER/huggingface TORCH_EXTENSIONS_DIR=/shared/$USER/torch_extensions
# export HNC_DS_CACHE=/local/$USER/hnc_ds HNC_DS_CACHE_GB=200

# The network between nodes, where the right interface is not found.
# export NCCL_SOCKET_IFNAME=ib0 GLOO_SOCKET_IFNAME=ib0
# export NCCL_DEBUG=WARN
