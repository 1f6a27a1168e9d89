#!/usr/bin/env bash
# Build Kennel's images, push them where SageMaker can take them, and scan what is in them. See --help.
set -euo pipefail

usage() {
  cat <<'USAGE'
usage: ./build_and_push.sh [--dry-run] VERB... [IMAGE...]

  build   docker buildx build -> kennel/IMAGE:COMMIT, :VERSION, :local (what ON=docker runs) in the local engine
  push    to the registry as REPOSITORY:COMMIT, read back, and say whether SageMaker will accept it
  scan    the locked packages: SBOM and vulnerability report in build/scan

IMAGE: training, serving-cpu, serving-gpu; all without one. Verbs run in this order: build, scan, push.

  ./build_and_push.sh build serving-cpu                     try it here, nothing leaves the machine
  AWS_REGION=eu-west-1 ./build_and_push.sh build push       Amazon ECR; the repositories are made if missing
  REGISTRY=docker.io/me ./build_and_push.sh build push      any other registry, after `docker login`
  ./build_and_push.sh --dry-run build push                  print the steps only

The digests of what was pushed are kept in container/images.json. A second push of the same commit does nothing.

Environment (docs/images.md says more):
  IMAGES              instead of IMAGE arguments
  AWS_REGION          or AWS_DEFAULT_REGION, or the region of the AWS profile
  AWS_ACCOUNT_ID      default: the account that the credentials belong to
  REPOSITORY_PREFIX   default kennel: ECR repositories kennel/training ..., elsewhere REGISTRY/kennel-training ...
  REGISTRY            a registry other than ECR: docker.io/user, localhost:5000/team
  PLATFORM            default linux/amd64; linux/arm64 for Graviton
  BUILD_ARGS          "BASE_IMAGE=... TORCH_INDEX_URL=..."; BUILD_FLAGS: further flags of docker buildx build
  LOCAL_TAG           default local: a tag that follows the last build and never leaves the machine
  ALLOW_DIRTY=1       push although the working tree differs from the commit (tag COMMIT-dirty)
  UNTAGGED_DAYS       default 14: a new ECR repository drops untagged images after that
  PUSH_PAUSE_SECONDS  default 10: between the three attempts of a push
  OSV_URL             scan against a mirror of the OSV database instead of the package index's advisories
  ALLOW_OFFLINE=1     let a scan pass although not every package could be looked up
USAGE
}

cd "$(dirname "${BASH_SOURCE[0]}")"
PATH="$PATH:$PWD/.venv/bin" # aws, pip-audit and cyclonedx-py, where the machine has none of its own
python=.venv/bin/python
[[ -x $python ]] || python=python3
platform=${PLATFORM:-linux/amd64}
dry_run=""

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
fail() {
  echo "error: $*" >&2
  exit 1
}
run() {
  say "$*"
  [[ -n $dry_run ]] || "$@"
}
need() { command -v "$1" >/dev/null || fail "$1 is missing; $2."; }

read_revision() {
  sha=$(git rev-parse --verify --short=12 HEAD 2>/dev/null) ||
    fail "This is no git checkout with a commit, and images are tagged by commit. Clone the repository, or commit."
  revision=$(git rev-parse HEAD)
  dirty=$(git status --porcelain)
  tag=$sha${dirty:+-dirty}
  version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml | head -n 1)
  [[ -n $version ]] || fail "pyproject.toml names no version; add: version = \"X.Y.Z\""
}

need_engine() {
  [[ -n $dry_run ]] && return
  need docker "install Docker Engine or Docker Desktop"
  docker version >/dev/null 2>&1 ||
    fail "No Docker engine answers (DOCKER_HOST=${DOCKER_HOST:-unset}); start it and run again."
}

build_image() {
  local image=$1 argument file=container/serving.Dockerfile
  local -a flags=(--target "${image#serving-}")
  if [[ $image = training ]]; then file=container/training.Dockerfile flags=(); fi
  for argument in "REVISION=$revision" "VERSION=$version" ${BUILD_ARGS:-}; do
    flags+=(--build-arg "$argument")
  done
  # SageMaker refuses OCI manifests, and the index that attestations make of an image
  # (aws/amazon-sagemaker-feedback#180); type=docker is --load, with the media types said.
  # shellcheck disable=SC2086 # BUILD_FLAGS is several words
  run docker buildx build --output type=docker,oci-mediatypes=false --platform "$platform" \
    --provenance=false --sbom=false --file "$file" "${flags[@]}" ${BUILD_FLAGS:-} \
    --tag "kennel/$image:$tag" --tag "kennel/$image:$version" --tag "kennel/$image:${LOCAL_TAG:-local}" .
  [[ -n $dry_run ]] || say "$image: built kennel/$image:$tag"
}

# Sets registry (host and path), separator, and for ECR the login that docker and the read-back use.
find_registry() {
  prefix=${REPOSITORY_PREFIX:-kennel}
  if [[ -n ${REGISTRY:-} ]]; then
    registry=${REGISTRY%/} separator=- # Docker Hub knows no repository below user/name
    return
  fi
  separator=/
  if [[ -n $dry_run ]]; then
    registry="${AWS_ACCOUNT_ID:-<account>}.dkr.ecr.${AWS_REGION:-${AWS_DEFAULT_REGION:-<region>}}.amazonaws.com"
    say "aws ecr get-authorization-token | docker login --username AWS --password-stdin $registry"
    return
  fi
  need aws "install the AWS CLI, or set REGISTRY to push elsewhere"
  AWS_REGION=${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region || true)}}
  [[ -n $AWS_REGION ]] ||
    fail "No AWS region: set AWS_REGION (where the endpoint will be), or REGISTRY to push elsewhere."
  export AWS_REGION AWS_DEFAULT_REGION=$AWS_REGION
  local answer endpoint token
  # The host is asked for, not put together: it differs in China and other partitions.
  answer=$(aws ecr get-authorization-token --output text \
    --query 'authorizationData[0].[proxyEndpoint,authorizationToken]' 2>&1) ||
    fail "ECR in $AWS_REGION gives no login ($(tail -n 1 <<<"$answer"));" \
      "check the credentials (aws sts get-caller-identity) and that they may call ecr:GetAuthorizationToken."
  read -r endpoint token <<<"$answer"
  registry=${endpoint#https://}
  [[ -z ${AWS_ACCOUNT_ID:-} ]] || registry=$AWS_ACCOUNT_ID.${registry#*.}
  export REGISTRY_AUTH=$token
  answer=$(base64 --decode <<<"$token" | cut -d : -f 2- |
    docker login --username AWS --password-stdin "$registry" 2>&1) ||
    fail "docker login to $registry failed: $(tail -n 1 <<<"$answer")"
  say "logged in to $registry"
}

make_repository() {
  local name=$1 account=${AWS_ACCOUNT_ID:-} answer
  local -a where=(--repository-name "$name" ${account:+--registry-id "$account"})
  local lifecycle='{"rules": [{"rulePriority": 1, "description": "untagged images", "action": {"type": "expire"},
    "selection": {"tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days",
    "countNumber": '${UNTAGGED_DAYS:-14}'}}]}'
  if [[ -n $dry_run ]]; then
    say "aws ecr create-repository ${where[*]} (if missing: scan on push, immutable tags, lifecycle policy)"
    return
  fi
  if answer=$(aws ecr describe-repositories --repository-names "$name" ${account:+--registry-id "$account"} --output text \
    --query 'repositories[0].[imageTagMutability,imageScanningConfiguration.scanOnPush]' 2>&1); then
    [[ $answer = IMMUTABLE$'\t'True ]] ||
      say "note: repository $name is left as it is (tags, scan on push: ${answer//$'\t'/, })"
    return
  fi
  [[ $answer = *RepositoryNotFoundException* ]] ||
    fail "ECR does not show repository $name: $(tail -n 1 <<<"$answer")"
  if ! answer=$(aws ecr create-repository "${where[@]}" --image-tag-mutability IMMUTABLE \
    --image-scanning-configuration scanOnPush=true 2>&1); then
    [[ $answer = *RepositoryAlreadyExistsException* ]] && return # another push was faster
    fail "ECR repository $name cannot be made: $(tail -n 1 <<<"$answer")"
  fi
  answer=$(aws ecr put-lifecycle-policy "${where[@]}" --lifecycle-policy-text "$lifecycle" 2>&1) ||
    fail "ECR repository $name was made, but not its lifecycle policy: $(tail -n 1 <<<"$answer")"
  say "made ECR repository $name: immutable tags, scan on push, untagged images go after ${UNTAGGED_DAYS:-14} days"
}

# docker push skips the layers that the registry has, so another attempt continues where the last one broke off.
push_with_retries() {
  local attempt log answer
  log=$(mktemp)
  for attempt in 1 2 3; do
    say "docker push $1 (attempt $attempt of 3)"
    if docker push "$1" 2>&1 | tee "$log" | grep -E 'Pushed|already exists|digest:|rror|denied'; [[ ${PIPESTATUS[0]} = 0 ]]; then
      rm -f "$log"
      return
    fi
    ! grep -qiE 'denied|unauthorized|no basic auth|immutable' "$log" || break
    [[ $attempt = 3 ]] || sleep "${PUSH_PAUSE_SECONDS:-10}"
  done
  answer=$(tail -n 1 "$log")
  rm -f "$log"
  fail "$1 was not pushed: ${answer:-docker push was interrupted}. Run the same command again; finished layers are kept."
}

push_tag() {
  local built=$1 uri=$2 state
  state=$("$python" -m local.image_check compare "$built" "$uri")
  case $state in
  same) say "$uri is already pushed" ;;
  different)
    fail "$uri is already in the registry with other content, and tags are not moved. Use the pushed one" \
      "(docker pull $uri), or commit the change and push under the new commit's tag." ;;
  *)
    docker tag "$built" "$uri"
    push_with_retries "$uri"
    ;;
  esac
}

push_image() {
  local image=$1 repository=$registry/$prefix$separator$1 built=kennel/$1:$tag
  [[ $separator = - ]] || make_repository "$prefix/$image"
  if [[ -n $dry_run ]]; then
    say "docker push $repository:$tag, unless it is there already"
    say "read $repository:$tag back, judge it, write its digest to container/images.json"
    return
  fi
  "$python" -m local.image_check built "$image" "$built" --platform "$platform"
  push_tag "$built" "$repository:$tag"
  # A version's tag cannot be moved either, so it waits for the commit that git calls by that version.
  if [[ -z $dirty ]] && git tag --points-at HEAD | grep -qxF "v$version"; then
    push_tag "$built" "$repository:$version"
  fi
  "$python" -m local.image_check pushed "$image" "$repository:$tag" --platform "$platform"
}

scan_image() {
  local lock=requirements/$1.txt sbom=build/scan/$1.cdx.json report=build/scan/$1.audit.json log=build/scan/$1.log
  local judged=0
  local -a audit=(pip-audit --requirement "$lock" --require-hashes --disable-pip --progress-spinner off
    --format json --output "$report" ${OSV_URL:+--vulnerability-service osv --osv-url "$OSV_URL"})
  run cyclonedx-py requirements "$lock" --output-reproducible --of JSON --output-file "$sbom" || return 1
  say "${audit[*]}"
  [[ -z $dry_run ]] || return 0
  rm -f "$report"
  "${audit[@]}" >"$log" 2>&1 || true # its exit code is 1 for a finding and for a failure; the report tells
  if [[ -s $report ]]; then
    "$python" -m local.vulnerabilities "$report" || judged=$?
  else
    judged=3
  fi
  [[ $judged != 0 ]] || return 0
  if [[ $judged = 3 ]]; then
    echo "$1: pip-audit could not look up every package; is its advisory database reachable? See $log." >&2
    if [[ -n ${ALLOW_OFFLINE:-} ]]; then
      echo "$1: ALLOW_OFFLINE is set, so the scan passes WITHOUT knowing about those packages." >&2
      return 0
    fi
    echo "$1: nothing is known about the rest; scan where the database is, or set OSV_URL or ALLOW_OFFLINE=1." >&2
  fi
  return 1
}

scan_images() {
  local image failed=""
  if [[ -z $dry_run ]]; then
    need cyclonedx-py "run make setup"
    need pip-audit "run make setup"
    mkdir -p build/scan
  fi
  for image in "${images[@]}"; do scan_image "$image" || failed+=" $image"; done
  [[ -z $failed ]] || fail "The scan does not pass:$failed"
}

build_images() {
  local image
  need_engine
  [[ -n $dry_run ]] || docker buildx version >/dev/null 2>&1 ||
    fail "docker buildx is missing; the Dockerfiles need it. Install the docker-buildx-plugin package."
  for image in "${images[@]}"; do build_image "$image"; done
}

push_images() {
  local image
  [[ -z $dirty || -n ${ALLOW_DIRTY:-} || -n $dry_run ]] ||
    fail "The working tree differs from commit $sha, so its images could not be made again. Commit," \
      "or set ALLOW_DIRTY=1 to push them as $tag. Changed: $(head -n 3 <<<"$dirty" | tr -s ' \n' ' ')"
  need_engine
  find_registry
  for image in "${images[@]}"; do push_image "$image"; done
}

verbs=" " images=()
for word in "$@"; do
  case $word in
  -h | --help) usage && exit ;;
  --dry-run) dry_run=1 ;;
  build | push | scan) verbs+="$word " ;;
  training | serving-cpu | serving-gpu) images+=("$word") ;;
  *) fail "'$word' is neither a verb (build, push, scan) nor an image (training, serving-cpu, serving-gpu); see --help." ;;
  esac
done
if [[ $verbs = " " ]]; then
  usage >&2
  exit 2
fi
if [[ ${#images[@]} = 0 ]]; then
  read -r -a images <<<"${IMAGES:-training serving-cpu serving-gpu}"
  for word in "${images[@]}"; do
    [[ $word = training || $word = serving-cpu || $word = serving-gpu ]] ||
      fail "IMAGES names '$word'; there are training, serving-cpu and serving-gpu."
  done
fi

read_revision
if [[ $verbs = *" build "* ]]; then build_images; fi
if [[ $verbs = *" scan "* ]]; then scan_images; fi
if [[ $verbs = *" push "* ]]; then push_images; fi
