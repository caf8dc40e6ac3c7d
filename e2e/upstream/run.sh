#!/bin/bash
# Runs Kubernetes' External Storage suite on the cluster of KUBECONFIG:
#
#   run.sh TESTS GINKGO
#
# TESTS and GINKGO are programs, see the Makefile. If the cluster has neither the provisioner nor
# the class rbd-upstream, they are installed, which needs CEPH_CONF of an administrator and the
# pool kube, and removed at the end. Other variables:
#
#   FOCUS      a regular expression: run these specs only
#   SELECTION  a file with one such expression per line
#   PROCS      the number of specs that run at the same time
set -euo pipefail

here=$(dirname "$(realpath "$0")")
repository=$(realpath "$here/../..")
tests=$(realpath "$1") ginkgo=$(realpath "$2")
results=$repository/_output/upstream
class=rbd-upstream
children=()

say() { printf '%(%H:%M:%S)T upstream: %s\n' -1 "$*"; }

installed=()
# shellcheck disable=SC2317 # the trap calls it
cleanup() {
	local what
	[ ${#children[@]} = 0 ] || kill "${children[@]}" 2>/dev/null || true
	for what in "${installed[@]}"; do
		case $what in
		class)
			kubectl delete --ignore-not-found storageclass "$class"
			kubectl delete --ignore-not-found --namespace kube-system secret "$class"
			ceph auth rm client.upstream
			;;
		provisioner)
			# Its role is needed until its lease is released.
			kubectl --namespace kube-system delete deployment rbd-provisioner --cascade=foreground
			kubectl delete --ignore-not-found -k "$repository/deploy"
			;;
		esac
	done >>"$results/install.log" 2>&1
}

install_provisioner() {
	if ! kubectl --namespace kube-system get deployment rbd-provisioner &>/dev/null; then
		say 'installing the provisioner'
		installed+=(provisioner)
		kubectl apply -k "$repository/deploy" >>"$results/install.log"
	fi
	kubectl --namespace kube-system rollout status deployment/rbd-provisioner --timeout 5m
}

install_class() {
	local monitors key manifest
	if kubectl get storageclass "$class" &>/dev/null; then
		say "using the existing class $class"
		return
	fi
	say "creating the class $class"
	monitors=$(ceph mon dump --format json 2>/dev/null |
		grep -o '"type":"v1","addr":"[^"]*"' | sed 's/.*"addr":"//; s/"//' | sort -u | paste -sd,)
	# Before the class, so that it is removed after it.
	installed=(class "${installed[@]}")
	key=$(ceph auth get-or-create-key client.upstream mon 'profile rbd' osd 'profile rbd pool=kube')
	manifest=$(<"$here/class.yaml")
	manifest=${manifest/"MONITORS"/"$monitors"}
	# By the shell itself: other users can see the arguments of a command.
	kubectl apply -f - <<<"${manifest/"key: KEY"/"key: $key"}" >>"$results/install.log"
}

focus=()
[ -z "${FOCUS:-}" ] || focus=("$FOCUS")
[ -z "${SELECTION:-}" ] || mapfile -t focus < <(grep -v '^#' "$SELECTION")

rm -rf "$results"
mkdir -p "$results"
touch "$results/progress.log"
trap cleanup EXIT
trap 'exit 143' TERM INT HUP
install_provisioner
install_class

say "running the suite; its output is in $results"
tail -f "$results/progress.log" &
children+=($!)
start=$SECONDS status=0
# The specs that use SSH need more than a key, see skips.yaml.
export KUBE_SSH_KEY_PATH=/dev/null
"$ginkgo" --procs="${PROCS:-4}" --timeout=6h --no-color "${focus[@]/#/--focus=}" "$tests" -- \
	--kubeconfig="$KUBECONFIG" --provider=skeleton --storage.testdriver="$here/driver.yaml" \
	--results="$results" >"$results/suite.log" 2>&1 &
children+=($!)
wait $! || status=$?
if [ -e "$results/report.txt" ]; then
	cat "$results/report.txt"
else
	tail -n 50 "$results/suite.log"
fi
say "done in $((SECONDS - start)) s, exit status $status"
exit "$status"
