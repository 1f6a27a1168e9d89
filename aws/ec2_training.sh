# Sourced into an EC2 machine's user data below the facts of one job (aws/ec2.py): IMAGE REGION HYPERPARAMETERS
# CHANNELS JOB OUTPUT CHECKPOINTS MAX_MINUTES STOP_MINUTES GPU. Tests run it with stand-ins for aws and docker.
# shellcheck shell=bash disable=SC2154
set -euo pipefail

prefix=${PREFIX:-/opt/ml}
log=$prefix/training.log
mkdir -p "$prefix"/{input/config,input/data,model,output/data,checkpoints}

# First of all the end: a machine that hangs is still paid for.
shutdown -h "+$((MAX_MINUTES + STOP_MINUTES))"

finish() {
  local code=$? file
  set +e
  kill "${syncer:-}" 2>/dev/null
  echo "exit_code=$code" >>"$log"
  if [[ -n $(ls -A "$prefix/model") ]]; then
    tar -czf "$prefix/model.tar.gz" -C "$prefix/model" . && aws s3 cp --only-show-errors "$prefix/model.tar.gz" "$OUTPUT/model.tar.gz"
  fi
  tar -czf "$prefix/output.tar.gz" -C "$prefix/output" . && aws s3 cp --only-show-errors "$prefix/output.tar.gz" "$OUTPUT/output.tar.gz"
  aws s3 sync --only-show-errors "$prefix/checkpoints" "$CHECKPOINTS"
  for file in "$prefix/output/failure" "$log"; do
    [[ ! -f $file ]] || aws s3 cp --only-show-errors "$file" "$OUTPUT/${file##*/}"
  done
  shutdown -h now
}
trap finish EXIT
exec > >(tee -a "$log") 2>&1

export AWS_DEFAULT_REGION=$REGION
command -v docker >/dev/null || dnf install -y -q docker
systemctl start docker
aws ecr get-login-password | docker login --username AWS --password-stdin "${IMAGE%%/*}"
docker pull --quiet "$IMAGE"

printf '%s' "$HYPERPARAMETERS" >"$prefix/input/config/hyperparameters.json"
printf '%s' '{"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0"}' \
  >"$prefix/input/config/resourceconfig.json"
while read -r name uri; do
  aws s3 sync --only-show-errors "$uri" "$prefix/input/data/$name"
done <<<"$CHANNELS"

aws s3 sync --only-show-errors "$CHECKPOINTS" "$prefix/checkpoints"
while sleep 60; do aws s3 sync --only-show-errors --delete "$prefix/checkpoints" "$CHECKPOINTS"; done >>"$log" 2>&1 &
syncer=$!

# SIGTERM, and two minutes to save the model, as StopTrainingJob gives.
timeout --signal=TERM --kill-after=120 "$((MAX_MINUTES * 60))" \
  docker run --rm ${GPU:+"$GPU"} --shm-size=8g --env "TRAINING_JOB_NAME=$JOB" --volume "$prefix:/opt/ml" "$IMAGE" train
