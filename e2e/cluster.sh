#!/usr/bin/env bash
# The cluster that the demo, the end-to-end tests and the benchmark run on.
#
#   cluster.sh up                 start it, or use it as it is, and print its kubeconfig's path
#   cluster.sh kubeconfig         print that path
#   cluster.sh kubectl ...        run kubectl on it
#   cluster.sh load-image NAME:TAG PROGRAM[:PATH] [FILE[:PATH]...]
#                                 make an image of a program and load it (local with NODE=1, kind)
#   cluster.sh down               remove it
#
#   CLUSTER   local (default): a control plane on this machine, see cluster/README.md
#             kind: by kind, where Docker runs
#             current: the current kubeconfig context, after asking (CLUSTER_YES=1: without)
#   NAME      which one of several (default: holdfast)
#   NODE=1    local: with a node, so that pods run; needs root
#
# Nothing can be loaded into a current cluster: push the image that the tests' Jobs run to a registry that it pulls from, and
# name it in HOLDFAST_TASK_IMAGE. Without it, the tests that need it say that they are skipped. To make it (skopeo, or
# whatever pushes an archive of an OCI image layout, does the rest):
#   cargo build -p holdfast-e2e --bin task
#   e2e/cluster/run image task.tar registry.example.com/task:e2e target/debug/task:/task
#   skopeo copy oci-archive:task.tar docker://registry.example.com/task:e2e
#
# Only results go to stdout: KUBECONFIG=$(e2e/cluster.sh up).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CLUSTER_DIR=${CLUSTER_DIR:-$(dirname "$here")/.cluster}
name=${NAME:-holdfast}
kubeconfig=$CLUSTER_DIR/${CLUSTER:-local}-$name.kubeconfig # of kind and current

fail() {
  echo "cluster.sh: $*" >&2
  exit 1
}

tool() { "$here/cluster/run" "$@"; }

# The machine's own program if it has one, else the one that is built here.
kind() { if type -P kind > /dev/null; then command kind "$@"; else "$here/kind/run" "$@"; fi; }
kubectl() { if type -P kubectl > /dev/null; then command kubectl "$@"; else tool kubectl "$@"; fi; }

local_up() { if [ "${NODE:-}" = 1 ]; then tool up --name "$name" --node; else tool up --name "$name"; fi; }
local_kubeconfig() { tool kubeconfig --name "$name"; }
local_kubectl() { KUBECONFIG=$(local_kubeconfig) tool kubectl "$@"; }
local_load_image() { tool load-image --name "$name" "$@"; }
local_down() { tool down --name "$name"; }

kind_up() {
  docker info > /dev/null 2>&1 || fail "CLUSTER=kind needs a Docker engine, and \"docker info\" finds none"
  mkdir -p "$CLUSTER_DIR"
  if kind get clusters 2> /dev/null | grep -qxF "$name"; then
    kind export kubeconfig --name "$name" --kubeconfig "$kubeconfig" >&2
  else
    kind create cluster --name "$name" --kubeconfig "$kubeconfig" --wait 3m >&2
  fi
  echo "$kubeconfig"
}
kind_kubeconfig() { saved_kubeconfig; }
kind_kubectl() { KUBECONFIG=$(saved_kubeconfig) kubectl "$@"; }
kind_load_image() {
  local archive
  archive=$(mktemp)
  trap 'rm -f "$archive"' EXIT
  tool image "$archive" "$@"
  kind load image-archive "$archive" --name "$name" >&2
}
kind_down() {
  kind delete cluster --name "$name" --kubeconfig "$kubeconfig" >&2
  rm -f "$kubeconfig"
}

# A copy of what the current context is now: switching contexts later changes nothing here.
current_up() {
  local context server answer=
  context=$(kubectl config current-context) || fail "CLUSTER=current: no context is current"
  server=$(kubectl config view --minify -o 'jsonpath={.clusters[0].cluster.server}')
  if [ "${CLUSTER_YES:-}" != 1 ]; then
    { : < /dev/tty; } 2> /dev/null || fail "CLUSTER=current would use context $context ($server), and there is no terminal to ask on: CLUSTER_YES=1 agrees"
    printf 'Holdfast will be installed into the cluster of context %s (%s). Go on? [y/N] ' "$context" "$server" > /dev/tty
    read -r answer < /dev/tty
    case $answer in y | Y | yes) ;; *) fail "not agreed to use context $context" ;; esac
  fi
  mkdir -p "$CLUSTER_DIR"
  (umask 077 && kubectl config view --minify --flatten --raw > "$kubeconfig")
  echo "$kubeconfig"
}
current_kubeconfig() { saved_kubeconfig; }
current_kubectl() { KUBECONFIG=$(saved_kubeconfig) kubectl "$@"; }
current_load_image() { fail "CLUSTER=current: push the image to a registry that the cluster pulls from (the head of cluster.sh says how)"; }
current_down() {
  rm -f "$kubeconfig"
  echo "The cluster of the current context stays as it is; uninstall Holdfast by helm or kubectl." >&2
}

saved_kubeconfig() {
  [ -f "$kubeconfig" ] || fail "there is no cluster $name of CLUSTER=$CLUSTER: run \"cluster.sh up\" first"
  echo "$kubeconfig"
}

cluster=${CLUSTER:-local}
command=${1:-}
case $cluster in
  local | kind | current) ;;
  *) fail "CLUSTER=$cluster: local, kind or current" ;;
esac
case $command in
  up | down | kubeconfig | kubectl | load-image)
    shift
    "${cluster}_${command//-/_}" "$@"
    ;;
  *)
    sed -n '2,/^$/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
