# shellcheck shell=bash disable=SC2034 # slurm/pipeline.sh reads it
# Settings of slurm/pipeline.sh: copy, edit.

OUT=runs/first-pipeline # everything is written here

GRAPHS_train=gqa/train_sceneGraphs.json
GRAPHS_val=gqa/val_sceneGraphs.json
IMAGES=gqa/images
GENERATE=()         # flags of `hnc-ds generate`
PACK=()             # flags of `hnc-ds pack`
ARRAY=(--array=0-7) # array size of both stages; () for one job

START=ViT-L-14-336-quickgelu:openai # reference model, evaluated like the trained one
TRAIN=(--model ViT-L-14-336-quickgelu --pretrained openai --deepspeed_config zero1_bf16 --steps 2000)
EVALUATE=()                       # flags of `hnc-ds evaluate`, such as --data sugarcrepe=DIR
GPUS=(--nodes=1 --gres=gpu:4)     # of train, evaluate and answer

LLAVA=llava-1.5-7b-hf # '' leaves LLaVA out
ASK=(--dataset vqav2 --questions vqa/questions.json --images val2014)
ANNOTATIONS=vqa/annotations.json
