# hnc_ds with CUDA's compiler, by which DeepSpeed builds its operators when they are first used.
#
#     docker build -t hnc_ds .
#     docker run --rm --gpus all --shm-size 16g -v "$PWD:/data" hnc_ds doctor
#
# The tests check this file, and build the wheel of what it copies; the image itself has not been
# built. It runs as root, as its base does.
FROM nvidia/cuda:13.0.2-devel-ubuntu24.04

RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/hnc_ds
ENV PATH=/opt/hnc_ds/bin:$PATH

WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE constraints.txt ./
COPY ds_configs ds_configs
COPY slurm slurm
COPY hnc_ds hnc_ds
RUN pip install --no-cache-dir -c constraints.txt '.[report,audit,negclip,llava,parquet,s3,gs,hf,wandb,trackio]'

WORKDIR /data
ENTRYPOINT ["hnc-ds"]
