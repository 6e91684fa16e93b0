#!/usr/bin/env bash
# Draw data, train a small detector with HetConv, test it and sum up. Finished
# steps are kept, an interrupted training is resumed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

python=${PYTHON:-python}
config=configs/demo_faster_rcnn_het_r18.py
work_dir=work_dirs/demo
pictures=$PWD/$work_dir/pictures
trained=$work_dir/trained.pth

echo '[demo 1/3] data'
"$python" tools/demo/make_shapes.py data/demo

echo '[demo 2/3] training'
if [ -e "$trained" ]; then
    echo "$trained is there already; without it the training is repeated"
else
    "$python" tools/train.py "$config" --work-dir "$work_dir" --resume
    ln -s "$(basename "$(<"$work_dir/last_checkpoint")")" "$trained"
fi

echo '[demo 3/3] test'
rm -rf "$pictures"
"$python" tools/test.py "$config" "$trained" --work-dir "$work_dir" \
    --show-dir "$pictures" | tee "$work_dir/test.log"

echo
"$python" tools/get_flops.py "$config"
echo
echo "COCO: $(grep -o 'bbox_mAP\(_50\|_75\)\?: [0-9.]*' "$work_dir/test.log" \
    | tail -3 | paste -sd ' ')"
echo "Pictures with detections: $pictures"
